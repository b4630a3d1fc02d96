"""Java: javac and java."""

from __future__ import annotations

import re

from codegeex.evaluate.mask import mask
from codegeex.evaluate.runners.base import (
    Plan,
    Toolchain,
    asked,
    ended_early,
    find_tool,
    folders_of,
    last_line,
    line_with,
    text,
)
from codegeex.evaluate.verdict import Judgement, Verdict
from glm_core.agent.executor import ProgramResult
from glm_core.agent.executor.limits import MIB

_REMEDY = "apt-get install default-jdk-headless"
_ERROR = re.compile(r"\berror:")
_ASSERTION = re.compile(r"^Exception in thread \S+ java\.lang\.AssertionError")
_MEMORY = re.compile(r"java\.lang\.OutOfMemoryError|insufficient memory")
_EXCEPTION = re.compile(r"^Exception in thread|^Error: |^Caused by")

_PUBLIC = re.compile(r"\bpublic\s+(?:final\s+|abstract\s+)*(?:class|enum|record)\s+(\w+)")
_CLASS = re.compile(r"\b(?:class|enum|record|interface)\s+(\w+)")
_MAIN = re.compile(r"\bstatic\s+(?:final\s+)?(?:synchronized\s+)?void\s+main\b")

_SMALL = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto")
"""A virtual machine for a program of seconds: it starts in half the time."""
_SETTINGS_FOLDER = "/etc/java-"

_LAUNCHER = """\
public class RunTests {
    public static void main(String[] arguments) throws Throwable {
        Main.main(arguments);
        System.out.flush();
        System.out.print("%s");
        System.out.flush();
    }
}
"""


class JavaRunner:
    """Runs `Main` from a class of ours, which sees whether it came back."""

    memory_overhead = 320 * MIB

    def find(self) -> Toolchain:
        compiler, machine = find_tool("javac", _REMEDY), find_tool("java", _REMEDY)
        version = asked(compiler, "-version").splitlines()[-1]
        return Toolchain(
            version=version,
            tools={"javac": compiler, "java": machine},
            folders=(*folders_of(compiler), *_settings(compiler)),
        )

    def plan(self, source: str, token: str, tools: Toolchain, memory_bytes: int) -> Plan:
        return Plan(
            files={"Main.java": source, "RunTests.java": _LAUNCHER % token},
            compile=self._compile(tools, "Main.java", "RunTests.java"),
            run=self._run(tools, memory_bytes, "RunTests"),
        )

    def plan_plain(self, source: str, tools: Toolchain, memory_bytes: int) -> Plan:
        public = _PUBLIC.search(mask(source, "java"))
        name = public[1] if public else "Main"
        return Plan(
            files={f"{name}.java": source},
            compile=self._compile(tools, f"{name}.java"),
            run=self._run(tools, memory_bytes, _with_main(source) or name),
        )

    def _compile(self, tools: Toolchain, *files: str) -> tuple[str, ...]:
        machine = (f"-J{option}" for option in (*_SMALL, "-Xmx768m"))
        options = ("-nowarn", "-encoding", "UTF-8", "-d", "classes")
        return (tools.tools["javac"], *machine, *options, *files)

    def _run(self, tools: Toolchain, memory_bytes: int, name: str) -> tuple[str, ...]:
        heap = f"-Xmx{memory_bytes // MIB}m"
        return (tools.tools["java"], *_SMALL, heap, "-cp", "classes", name)

    def judge_compiled(self, result: ProgramResult) -> Judgement | None:
        if result.status == 0:
            return None
        detail = line_with(_ERROR, result.stderr) or last_line(result.stderr)
        return Judgement(verdict=Verdict.compile_error, detail=detail)

    def judge(self, result: ProgramResult, token: str) -> Judgement:
        if result.status == 0:
            whole = token in text(result.stdout)
            return Judgement(verdict=Verdict.passed) if whole else ended_early()
        kinds = (
            (_ASSERTION, Verdict.wrong_answer),
            (_MEMORY, Verdict.memory),
            (_EXCEPTION, Verdict.runtime_error),
        )
        for pattern, verdict in kinds:
            if line := line_with(pattern, result.stderr + b"\n" + result.stdout):
                return Judgement(verdict=verdict, detail=line)
        said = last_line(result.stderr) or f"status {result.status}"
        return Judgement(verdict=Verdict.runtime_error, detail=said)


def _with_main(source: str) -> str:
    """Returns the class that is around `main`, or an empty text."""
    masked = mask(source, "java")
    main = _MAIN.search(masked)
    classes = [found for found in _CLASS.finditer(masked) if main and found.start() < main.start()]
    outer = [
        found[1]
        for found in classes
        if masked[: found.start()].count("{") == masked[: found.start()].count("}")
    ]
    return outer[-1] if outer else ""


def _settings(compiler: str) -> tuple[str, ...]:
    """Returns the folders of /etc to which Debian's Java links."""
    from pathlib import Path

    settings = Path(compiler).resolve().parent.parent / "conf"
    targets = {link.resolve().parent for link in settings.rglob("*") if link.is_symlink()}
    tops = {str(Path(*target.parts[:3])) for target in targets}
    return tuple(sorted(top for top in tops if top.startswith(_SETTINGS_FOLDER)))
