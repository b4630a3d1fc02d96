"""Results as numbers and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from codegeex.evaluate.problems import language_name
from codegeex.evaluate.results import ResultRow
from codegeex.evaluate.score import count_verdicts, mean_pass_at_k
from codegeex.evaluate.verdict import Verdict

KS = (1, 10, 100)
"""The k of pass@k that the papers report."""


def report(rows: Iterable[ResultRow], ks: Sequence[int] = KS) -> list[dict[str, Any]]:
    """Returns a summary for each language and suite, in the order in which results come.

    Args:
        rows: of one or more languages.
        ks: for pass@k; those for which there are too few samples are left out.
    """
    parts: dict[tuple[str, str], dict[str, list[Verdict]]] = {}
    first: dict[tuple[str, str], ResultRow] = {}
    for row in rows:
        part = row.result.language, row.result.suite
        if part not in first or not first[part].result.isolation:  # of one that was run
            first[part] = row
        by_problem = parts.setdefault(part, {})
        by_problem.setdefault(row.result.task_id, []).append(row.result.verdict)
    return [_summary(by_problem, first[part], ks) for part, by_problem in parts.items()]


def _summary(
    by_problem: dict[str, list[Verdict]], row: ResultRow, ks: Sequence[int]
) -> dict[str, Any]:
    scores = mean_pass_at_k(by_problem, ks, row.num_problems)
    verdicts = count_verdicts(by_problem)
    return {
        "language": row.result.language,
        "suite": row.result.suite,
        "problems": row.num_problems,
        "problems_with_samples": len(by_problem),
        "samples": sum(map(len, by_problem.values())),
        "passed": verdicts.get(Verdict.passed, 0),
        "pass_at_k": {f"pass@{k}": score for k, score in scores.items()},
        "verdicts": verdicts,
        "isolation": row.result.isolation,
        "toolchain": row.result.toolchain,
    }


def report_text(summaries: Sequence[dict[str, Any]]) -> str:
    """Returns summaries as a table for people."""
    if not summaries:
        return "no results"
    header = ["", "problems", "samples", "passed", "score", "the others"]
    rows = [header, *(_cells(summary) for summary in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    kinds = sorted({summary["isolation"] for summary in summaries if summary["isolation"]})
    return "\n".join([*lines, *(f"kept in by {kind}" for kind in kinds)])


def _cells(summary: dict[str, Any]) -> list[str]:
    problems = f"{summary['problems_with_samples']}/{summary['problems']}"
    scores = [
        f"pass@{name[5:]} {100 * score:.1f} %" for name, score in summary["pass_at_k"].items()
    ]
    others = [
        f"{count} {verdict}"
        for verdict, count in summary["verdicts"].items()
        if verdict != Verdict.passed
    ]
    return [
        " ".join(filter(None, [language_name(summary["language"]), summary["suite"]])),
        problems,
        str(summary["samples"]),
        str(summary["passed"]),
        ", ".join(scores) or "-",
        ", ".join(others) or "-",
    ]
