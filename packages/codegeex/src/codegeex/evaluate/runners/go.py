"""Go: `go test`, with an assert package of ours in place of testify's."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import tempfile
import threading
from importlib import resources
from pathlib import Path

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
_COMPILE = ("test", "-vet=off", "-c", "-o")
_LIBRARY = "math strings fmt strconv time bytes regexp sort math/rand crypto/md5 errors unicode"
_WARM_UP = f"""\
package main

import (
\t"testing"
\t_ "{_TESTIFY}/assert"
{"".join(f'{chr(9)}_ "{name}"{chr(10)}' for name in _LIBRARY.split())})

func TestNothing(t *testing.T) {{}}
"""
_VENDORED = f"# {_TESTIFY} v1.8.0\n## explicit\n{_TESTIFY}/assert\n"


_WARM_UP_S = 300.0

logger = logging.getLogger(__name__)


class GoRunner:
    """Compiles the test into a program, and runs that apart.

    The standard library is compiled once, before the first program, into a folder that programs
    can only read: since version 1.20 Go comes without, and would do it for each of them.
    """

    memory_overhead = 128 * MIB

    def __init__(self) -> None:
        self._cache: tempfile.TemporaryDirectory[str] | None = None
        self._warming = threading.Lock()
        self._is_warm = False

    def find(self) -> Toolchain:
        tool = find_tool("go", "apt-get install golang-go")
        self._cache = tempfile.TemporaryDirectory(prefix="codegeex-go-")
        os.chmod(self._cache.name, 0o755)  # programs run as another user
        environment = {
            "GOROOT": asked(tool, "env", "GOROOT"),
            "GOCACHE": self._cache.name,
            "GOPATH": "/tmp/go",
            "GOFLAGS": "-mod=vendor",
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
            "GOMAXPROCS": "2",
        }
        return Toolchain(
            version=asked(tool, "version").removeprefix("go version ").split()[0],
            tools={"go": tool},
            folders=(*folders_of(tool), self._cache.name),
            environment=environment,
        )

    def plan(self, source: str, token: str, tools: Toolchain, memory_bytes: int) -> Plan:
        self._warm(tools)
        return Plan(
            files=_files(source),
            compile=(tools.tools["go"], *_COMPILE, "program", "."),
            run=("./program", "-test.v", "-test.timeout=0"),
        )

    def _warm(self, tools: Toolchain) -> None:
        """Compiles the library, if that has not been done."""
        with self._warming:
            if self._is_warm:
                return
            self._is_warm = True
            with tempfile.TemporaryDirectory(prefix="codegeex-go-warm-") as folder:
                for name, content in _files(_WARM_UP).items():
                    path = Path(folder, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(content)
                done = subprocess.run(
                    [tools.tools["go"], *_COMPILE, os.devnull, "."],
                    cwd=folder,
                    env={**os.environ, **tools.environment},
                    capture_output=True,
                    text=True,
                    timeout=_WARM_UP_S,
                )
            if done.returncode != 0:
                logger.warning(f"Go's library is compiled for each program: {done.stderr.strip()}")
            for path in Path(tools.environment["GOCACHE"]).rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)

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


def _files(source: str) -> dict[str, str]:
    """Returns a module with a test."""
    asserts = resources.files("codegeex.evaluate.runners") / "testify" / "assert.go"
    return {
        "main_test.go": source,
        "go.mod": _MODULE,
        "vendor/modules.txt": _VENDORED,
        f"vendor/{_TESTIFY}/assert/assert.go": asserts.read_text(encoding="utf-8"),
    }
