"""Go: `go test`, with an assert package of ours in place of testify's."""

from __future__ import annotations

import re
from importlib import resources

from codegeex.evaluate.runners.base import (
    Plan,
    Toolchain,
    asked,
    ended_early,
    find_tool,
    folders_of,
    last_line,
    line_with,
    signal_name,
    text,
)
from codegeex.evaluate.verdict import Judgement, Verdict
from glm_core.agent.executor import ProgramResult
from glm_core.agent.executor.limits import MIB

_ERROR = re.compile(r"\.go:\d+(?::\d+)?: |^can't load|cannot find|build failed")
_PASSED = re.compile(r"^\s*--- PASS: ", re.MULTILINE)
_FAILED = re.compile(r"^\s+\S+\.go:\d+: assertion failed|^\s*--- FAIL: ")
_PANIC = re.compile(r"^\s*(?:panic: |fatal error: )")
_MEMORY = re.compile(r"out of memory|cannot allocate memory|makeslice: len out of range")

_TESTIFY = "github.com/stretchr/testify"
_MODULE = f"module humanevalx\n\ngo 1.18\n\nrequire {_TESTIFY} v1.8.0\n"
_VENDORED = f"# {_TESTIFY} v1.8.0\n## explicit\n{_TESTIFY}/assert\n"


class GoRunner:
    """Compiles the test into a program, and runs that apart."""

    memory_overhead = 128 * MIB

    def find(self) -> Toolchain:
        tool = find_tool("go", "apt-get install golang-go")
        return Toolchain(
            version=asked(tool, "version").removeprefix("go version ").split()[0],
            tools={"go": tool},
            folders=folders_of(tool),
            environment={"GOROOT": asked(tool, "env", "GOROOT")},
        )

    def plan(self, source: str, token: str, tools: Toolchain, memory_bytes: int) -> Plan:
        asserts = resources.files("codegeex.evaluate.runners") / "testify" / "assert.go"
        return Plan(
            files={
                "main_test.go": source,
                "go.mod": _MODULE,
                "vendor/modules.txt": _VENDORED,
                f"vendor/{_TESTIFY}/assert/assert.go": asserts.read_text(encoding="utf-8"),
            },
            compile=(tools.tools["go"], *("test", "-vet=off", "-c", "-o", "program", ".")),
            run=("./program", "-test.v", "-test.timeout=0"),
            environment={
                "GOCACHE": "/tmp/go-cache",
                "GOPATH": "/tmp/go",
                "GOFLAGS": "-mod=vendor",
                "GOPROXY": "off",
                "GOTOOLCHAIN": "local",
                "CGO_ENABLED": "0",
                "GOMAXPROCS": "2",
            },
        )

    def judge_compiled(self, result: ProgramResult) -> Judgement | None:
        if result.status == 0:
            return None
        both = result.stdout + b"\n" + result.stderr
        detail = line_with(_ERROR, both) or last_line(both)
        return Judgement(verdict=Verdict.compile_error, detail=detail)

    def judge(self, result: ProgramResult, token: str) -> Judgement:
        assert result.status is not None
        if result.status == 0:
            whole = _PASSED.search(text(result.stdout))
            return Judgement(verdict=Verdict.passed) if whole else ended_early()
        both = result.stdout + b"\n" + result.stderr
        kinds = (
            (_MEMORY, Verdict.memory),
            (_PANIC, Verdict.runtime_error),
            (_FAILED, Verdict.wrong_answer),
        )
        for pattern, verdict in kinds:
            if line := line_with(pattern, both):
                return Judgement(verdict=verdict, detail=line)
        said = last_line(both) or f"status {result.status}"
        if result.status < 0:
            said = signal_name(result.status)
        return Judgement(verdict=Verdict.runtime_error, detail=said)
