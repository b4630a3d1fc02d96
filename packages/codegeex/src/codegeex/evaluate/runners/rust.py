"""Rust: rustc alone, and crates where a folder of them is given."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection
from pathlib import Path

from codegeex.evaluate.mask import mask
from codegeex.evaluate.runners.base import (
    Plan,
    Toolchain,
    ToolMissing,
    asked,
    ended_early,
    find_tool,
    folders_of,
    last_line,
    line_with,
    signal_name,
    text,
)
from codegeex.evaluate.runners.rust_crates import Crates, build_crates
from codegeex.evaluate.verdict import Judgement, Verdict
from glm_core.agent.executor import ProgramResult

_ERROR = re.compile(r"^error")
_PASSED = re.compile(r"^test result: ok\. [1-9]\d* passed; 0 failed", re.MULTILINE)
_ASSERTION = re.compile(r"assertion .*failed")
_PANIC = re.compile(r"panicked at|overflowed its stack")
_MEMORY = re.compile(r"memory allocation of \d+ bytes failed|capacity overflow")

_USES = {
    "rand": re.compile(r"\brand\s*::|\bRng\b|\bgen_range\b"),
    "regex": re.compile(r"\bregex\s*::|\bRegex\b"),
    "md5": re.compile(r"\bmd5\s*::"),
}
"""Crates that every problem of HumanEval-X imports, and what shows that one is used."""


class RustRunner:
    """Compiles with `rustc --test`. A crate's import is left out where nothing of it is used.

    Args:
        crates: folder that `cargo vendor` made; empty where there is none.
    """

    memory_overhead = 0

    def __init__(self, crates: str = "") -> None:
        self._vendored = crates
        self._crates = Crates()
        self._built: tempfile.TemporaryDirectory[str] | None = None

    def find(self) -> Toolchain:
        remedy = "apt-get install rustc"
        root = asked(find_tool("rustc", remedy), "--print", "sysroot")
        compiler = f"{root}/bin/rustc"  # not rustup's, which wants the home folder
        find_tool("cc", "apt-get install gcc")
        if self._vendored:
            self._built = tempfile.TemporaryDirectory(prefix="codegeex-crates-")
            os.chmod(self._built.name, 0o755)  # programs run as another user
            self._crates = build_crates(Path(self._vendored), compiler, Path(self._built.name))
        folder = (self._crates.folder,) if self._crates.folder else ()
        return Toolchain(
            version=" ".join(asked(compiler, "--version").split()[:2]),
            tools={"rustc": compiler},
            folders=(*folders_of(compiler), *folder),
        )

    def plan(self, source: str, token: str, tools: Toolchain, memory_bytes: int) -> Plan:
        return Plan(
            files={"main.rs": _without_unused_crates(source, self._crates.libraries)},
            compile=(
                tools.tools["rustc"],
                *("--test", "--edition", "2021", "--cap-lints", "allow"),
                *("--color", "never", "-C", "debuginfo=0", "-o", "program", "main.rs"),
                *self._crates.options(),
            ),
            run=("./program", "--test-threads", "1", "--color", "never"),
            environment={"RUST_BACKTRACE": "0"},
        )

    def judge_compiled(self, result: ProgramResult) -> Judgement | None:
        if result.status == 0:
            return None
        detail = line_with(_ERROR, result.stderr) or last_line(result.stderr)
        return Judgement(verdict=Verdict.compile_error, detail=detail)

    def judge(self, result: ProgramResult, token: str) -> Judgement:
        assert result.status is not None
        output = text(result.stdout)
        if result.status == 0:
            whole = _PASSED.search(output)
            return Judgement(verdict=Verdict.passed) if whole else ended_early()
        both = result.stdout + b"\n" + result.stderr
        kinds = (
            (_ASSERTION, Verdict.wrong_answer),
            (_MEMORY, Verdict.memory),
            (_PANIC, Verdict.runtime_error),
        )
        for pattern, verdict in kinds:
            if line := line_with(pattern, both):
                return Judgement(verdict=verdict, detail=line)
        said = last_line(result.stderr) or f"status {result.status}"
        if result.status < 0:
            said = signal_name(result.status)
        return Judgement(verdict=Verdict.runtime_error, detail=said)


def _without_unused_crates(source: str, known: Collection[str] = ()) -> str:
    """Returns the source without imports of crates that are not here and that it does not use.

    Raises:
        ToolMissing: it uses one.
    """
    for crate, used in _USES.items():
        rest = re.sub(rf"^use\s+{crate}\b[^;]*;", "", source, flags=re.MULTILINE)
        if rest == source or crate in known:
            continue
        if used.search(mask(rest, "rust")):
            raise ToolMissing(
                f"the crate {crate} is not here: give a folder that `cargo vendor` made with "
                "--rust-crates"
            )
        source = rest
    return source
