"""``codegeex evaluate`` alone: what can be evaluated on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from glm_core.cli import emit


def run(args: argparse.Namespace) -> int:
    """Looks for a sandbox and for each language's tools, and prints what to type next."""
    from codegeex.evaluate.execute import tools_here
    from codegeex.evaluate.problems import languages, shipped_problems
    from glm_core.agent.executor import SandboxUnavailable
    from glm_core.agent.executor.choose import working_sandbox

    try:
        sandbox, reason = working_sandbox(), ""
    except SandboxUnavailable as error:
        sandbox, reason = "", str(error)
    found = [
        {"language": language, "problems": len(shipped_problems(language)), **tools_here(language)}
        for language in languages()
    ]
    emit(
        args,
        {"sandbox": sandbox, "reason": reason, "languages": found},
        _text(sandbox, reason, found),
    )
    return 0


def _text(sandbox: str, reason: str, found: list[dict[str, Any]]) -> str:
    from codegeex.evaluate.problems import language_name

    rows = [
        f"  {language_name(one['language']):<11} {one['version'] or 'skipped: ' + one['missing']}"
        for one in found
    ]
    return "\n".join(
        [
            f"sandbox    {sandbox or 'none: ' + reason}",
            "languages",
            *rows,
            "",
            "HumanEval-X, in these languages (give the official files with --problems; "
            f"{found[0]['problems']} problems of our own come along):",
            "  codegeex evaluate check --allow-execution",
            "  codegeex evaluate generate --language python --out samples.jsonl",
            "  codegeex evaluate execute samples.jsonl --allow-execution",
            "infilling: files of human-eval-infilling or SAFIM, or source of your own:",
            "  codegeex evaluate infilling FOLDER",
            "",
            "codegeex evaluate --help tells the rest",
        ]
    )
