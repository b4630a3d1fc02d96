"""Python: the interpreter that runs this."""

from __future__ import annotations

import platform
import re
import sys

from codegeex.evaluate.runners.base import (
    Plan,
    Toolchain,
    ToolMissing,
    ended_early,
    last_line,
    signal_name,
    text,
)
from codegeex.evaluate.verdict import Judgement, Verdict
from glm_core.agent.executor import ProgramResult

_SYNTAX = re.compile(r"^(?:SyntaxError|IndentationError|TabError)\b")
_TRACEBACK = "Traceback (most recent call last)"
_NO_NUMPY = "No module named 'numpy'"


class PythonRunner:
    """Isolated from the caller's variables and folders; installed packages can be imported."""

    memory_overhead = 0

    def find(self) -> Toolchain:
        version = f"Python {platform.python_version()}"
        return Toolchain(version=version, tools={"python": sys.executable})

    def plan(self, source: str, token: str, tools: Toolchain, memory_bytes: int) -> Plan:
        ending = f"\n__import__('os').write(1, b'{token}')\n"
        run = (tools.tools["python"], "-I", "-B", "main.py")
        return Plan(files={"main.py": source + ending}, run=run)

    def plan_plain(self, source: str, tools: Toolchain, memory_bytes: int) -> Plan:
        run = (tools.tools["python"], "-I", "-B", "main.py")
        return Plan(files={"main.py": source}, run=run)

    def judge_compiled(self, result: ProgramResult) -> Judgement | None:
        return None

    def judge(self, result: ProgramResult, token: str) -> Judgement:
        assert result.status is not None
        if result.status == 0:
            whole = token in text(result.stdout)
            return Judgement(verdict=Verdict.passed) if whole else ended_early()
        said = last_line(result.stderr)
        if result.status < 0:
            said = signal_name(result.status)
        elif said.startswith("AssertionError"):
            return Judgement(verdict=Verdict.wrong_answer, detail=said)
        elif said.startswith("MemoryError"):
            return Judgement(verdict=Verdict.memory, detail=said)
        elif _SYNTAX.match(said) and _TRACEBACK not in text(result.stderr):
            return Judgement(verdict=Verdict.compile_error, detail=said)
        elif _NO_NUMPY in said:
            raise ToolMissing("numpy is not installed: pip install numpy")
        return Judgement(verdict=Verdict.runtime_error, detail=said)
