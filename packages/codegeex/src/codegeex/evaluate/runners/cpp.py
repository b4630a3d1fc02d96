"""C++: g++, C++11 as HumanEval-X was written for."""

from __future__ import annotations

import re

from codegeex.evaluate.runners.base import (
    Plan,
    Toolchain,
    ToolMissing,
    asked,
    find_tool,
    folders_of,
    last_line,
    line_with,
    signal_name,
    text,
)
from codegeex.evaluate.verdict import Judgement, Verdict
from glm_core.agent.executor import ProgramResult

_REMEDY = "apt-get install g++"
_ERROR = re.compile(r"\berror:|undefined reference|multiple definition|ld returned")
_LIBRARY = re.compile(r"fatal error: (boost|openssl)/\S+: No such file")
_NO_LIBRARY = re.compile(r"cannot find -l(crypto|ssl)")
_PACKAGES = {"boost": "libboost-dev", "openssl": "libssl-dev", "crypto": "libssl-dev"}
_OPENSSL = re.compile(r"#\s*include\s*<\s*openssl/")
_BAD_ALLOC = re.compile(r"std::bad_alloc|std::length_error|cannot allocate")
_ASSERTION = re.compile(r"Assertion .* failed")

_EXITS = ("exit", "_exit", "_Exit", "quick_exit")
"""Ways to end a program before its tests have; the end of `main` takes none of them."""

_OPTIONS = ("-w", "-fdiagnostics-color=never", "-o", "program")

_EARLY = "the program ended itself before its tests were over"
_STUBS = """\
extern "C" {
long write(int, const void*, unsigned long);
void abort() __attribute__((noreturn));
static void early() { write(2, "%s\\n", %d); abort(); }
%s}
"""


class CppRunner:
    """Compiled without optimisation, as the original does; linked so that `exit` is seen."""

    memory_overhead = 0

    def find(self) -> Toolchain:
        compiler = find_tool("g++", _REMEDY)
        version = asked(compiler, "-dumpfullversion")
        return Toolchain(
            version=f"g++ {version}", tools={"g++": compiler}, folders=folders_of(compiler)
        )

    def plan(self, source: str, token: str, tools: Toolchain, memory_bytes: int) -> Plan:
        stubs = "".join(f"void __wrap_{name}(int) {{ early(); }}\n" for name in _EXITS)
        return Plan(
            files={"main.cpp": source, "ended.cpp": _STUBS % (_EARLY, len(_EARLY) + 1, stubs)},
            compile=(
                tools.tools["g++"],
                *("-std=c++11", *_OPTIONS, "main.cpp", "ended.cpp"),
                *(f"-Wl,--wrap={name}" for name in _EXITS),
                *_libraries(source),
            ),
            run=("./program",),
        )

    def plan_plain(self, source: str, tools: Toolchain, memory_bytes: int) -> Plan:
        options = ("-std=c++17", "-O2", *_OPTIONS, "main.cpp", *_libraries(source))
        return Plan(
            files={"main.cpp": source},
            compile=(tools.tools["g++"], *options),
            run=("./program",),
        )

    def judge_compiled(self, result: ProgramResult) -> Judgement | None:
        if result.status == 0:
            return None
        said = text(result.stderr)
        missing = _LIBRARY.search(said) or _NO_LIBRARY.search(said)
        if missing:
            package = _PACKAGES.get(missing[1], "libssl-dev")
            raise ToolMissing(f"{missing[1]} is not installed: apt-get install {package}")
        detail = line_with(_ERROR, result.stderr) or last_line(result.stderr)
        return Judgement(verdict=Verdict.compile_error, detail=detail)

    def judge(self, result: ProgramResult, token: str) -> Judgement:
        assert result.status is not None
        if result.status == 0:
            return Judgement(verdict=Verdict.passed)
        if line := line_with(_ASSERTION, result.stderr):
            return Judgement(verdict=Verdict.wrong_answer, detail=line)
        if line := line_with(_BAD_ALLOC, result.stderr):
            return Judgement(verdict=Verdict.memory, detail=line)
        said = last_line(result.stderr)
        if result.status < 0:
            said = said or signal_name(result.status)
        return Judgement(verdict=Verdict.runtime_error, detail=said or f"status {result.status}")


def _libraries(source: str) -> tuple[str, ...]:
    return ("-lcrypto", "-lssl") if _OPENSSL.search(source) else ()
