"""What execution has to know of a language."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from codegeex.evaluate.verdict import Judgement, Verdict
from glm_core.agent.executor import ProgramResult

_NO_ROOM = re.compile(r"No space left on device|File too large|ENOSPC|EFBIG")
_SIGXFSZ = -25
_DETAIL_CHARS = 300
_PROBE_S = 60.0


class ToolMissing(Exception):
    """What a program needs is not installed; the message says what, and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """The compiler or interpreter of a language on this machine."""

    version: str
    """As it names itself, such as `g++ 12.2.0`."""
    tools: Mapping[str, str]
    """Absolute paths by name."""
    folders: tuple[str, ...] = ()
    """What of the machine a program must be able to read, beside /usr."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a program is made and run; paths are relative to its work folder."""

    files: Mapping[str, str]
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()
    """Empty where nothing is compiled."""
    environment: Mapping[str, str] = field(default_factory=dict)


class Runner(Protocol):
    """One language. A `token` is a text that only a program whose tests were all run writes."""

    memory_overhead: int
    """Bytes that its run-time system takes beside the program's own data."""

    def find(self) -> Toolchain:
        """Returns what is installed.

        Raises:
            ToolMissing: too little.
        """
        ...

    def plan(self, source: str, token: str, tools: Toolchain, memory_bytes: int) -> Plan:
        """Returns how to run a program with its tests.

        Args:
            source: its text.
            token: what it writes when its tests have passed.
            tools: what `find` returned.
            memory_bytes: for its own data.

        Raises:
            ToolMissing: the source needs something that is not installed.
        """
        ...

    def judge_compiled(self, result: ProgramResult) -> Judgement | None:
        """Returns what the compiler's failure means; None where it succeeded.

        Raises:
            ToolMissing: something that the source needs is not installed.
        """
        ...

    def judge(self, result: ProgramResult, token: str) -> Judgement:
        """Returns what the end of a program means that ended by itself."""
        ...


@runtime_checkable
class PlainRunner(Runner, Protocol):
    """A language in which whole programs are run, that read and write."""

    def plan_plain(self, source: str, tools: Toolchain, memory_bytes: int) -> Plan:
        """Returns how to run a program as it is; arguments as of `plan`.

        Raises:
            ToolMissing: the source needs something that is not installed.
        """
        ...


_STOPS = {
    "wall_s": Verdict.timeout,
    "cpu_s": Verdict.timeout,
    "memory_bytes": Verdict.memory,
    "processes": Verdict.processes,
    "output_chars": Verdict.output,
    "sandbox": Verdict.runtime_error,
}
_STOPPED = {
    "wall_s": "it ran past {limit:g} seconds",
    "cpu_s": "it used more than {limit:g} seconds of processor time",
    "memory_bytes": "it used more than {limit:,.0f} bytes of memory",
    "processes": "it started more than {limit} processes and threads",
    "output_chars": "it wrote more than {limit} bytes of output",
    "sandbox": "it ended the sandbox around itself",
}


def judge_stopped(result: ProgramResult, limits: Mapping[str, float]) -> Judgement | None:
    """Returns the verdict over a program that was ended for a limit, or that hit one of files.

    Args:
        result: how it ended.
        limits: fields of ExecutorLimits.
    """
    if result.stopped:
        said = _STOPPED[result.stopped].format(limit=limits.get(result.stopped, 0))
        return Judgement(verdict=_STOPS[result.stopped], detail=said)
    if result.status == _SIGXFSZ or (result.status and _NO_ROOM.search(text(result.stderr))):
        found = line_with(_NO_ROOM, result.stderr) or "it wrote a file that is too large"
        return Judgement(verdict=Verdict.files, detail=found)
    return None


def ended_early() -> Judgement:
    """The verdict over a program that ended well, but before its tests did."""
    return Judgement(
        verdict=Verdict.runtime_error, detail="it ended itself before its tests were over"
    )


def text(output: bytes) -> str:
    """Returns output as text, whatever is in it."""
    return output.decode(errors="replace")


def line_with(pattern: re.Pattern[str], output: bytes) -> str:
    """Returns the first line that holds a pattern, or an empty text."""
    found = (line for line in text(output).splitlines() if pattern.search(line))
    return shortened(next(found, ""))


def last_line(output: bytes) -> str:
    """Returns the last line that is not empty, or an empty text."""
    lines = [line for line in text(output).splitlines() if line.strip()]
    return shortened(lines[-1]) if lines else ""


def shortened(line: str) -> str:
    """Returns a line that fits into a result, and that a terminal can show as it is."""
    return "".join(char for char in line.strip()[:_DETAIL_CHARS] if char.isprintable())


def signal_name(status: int) -> str:
    """Returns what a negative exit status means."""
    import signal

    try:
        return f"it was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was ended by signal {-status}"


def find_tool(name: str, remedy: str) -> str:
    """Returns the absolute path of a program.

    Raises:
        ToolMissing: it is not on the PATH.
    """
    found = shutil.which(name)
    if found is None:
        raise ToolMissing(f"{name} is not installed: {remedy}")
    return found


def asked(*command: str) -> str:
    """Returns what a tool prints about itself, on either stream.

    Raises:
        ToolMissing: it does not run.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolMissing(f"{command[0]} does not run here: {error}") from error
    said = done.stdout.strip() or done.stderr.strip()
    if done.returncode != 0 or not said:
        raise ToolMissing(f"{command[0]} does not run here: {said.splitlines()[-1:] or 'no word'}")
    return said


def folders_of(tool: str) -> tuple[str, ...]:
    """Returns the folder around a tool's `bin` that a sandbox must show, if it is not in /usr.

    Raises:
        ToolMissing: that folder is the home folder, or one around it.
    """
    real = Path(tool).resolve()
    if real.is_relative_to("/usr"):
        return ()
    folder, home = real.parent.parent, Path.home()
    if folder == home or folder in home.parents:
        raise ToolMissing(
            f"{tool} lies in the home folder itself, which the sandbox must not show: install it "
            "into a folder of its own"
        )
    return (str(folder),)
