"""Programs in an enclosure: files go in, commands run one after the other, everything ends."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Literal, Self

from glm_core.agent.executor import folder
from glm_core.agent.executor.cell import Cell
from glm_core.agent.executor.enclosure import Enclosure
from glm_core.agent.executor.limits import ExecutorLimits

Stop = Literal["", "wall_s", "cpu_s", "memory_bytes", "processes", "output_chars", "sandbox"]
"""Why a program was ended: the limit that it exceeded, or that its sandbox is gone."""

_PIECE = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramResult:
    """How a program ended, and what it wrote."""

    status: int | None
    """Exit status, or the negated number of a signal; None where it was ended for a limit."""
    stopped: Stop
    """Empty where it ended by itself."""
    stdout: bytes
    stderr: bytes
    """Both together hold at most `output_chars` bytes."""
    seconds: float
    """From its start to its end."""
    cpu_s: float
    """Processor seconds of all its processes."""
    peak_bytes: int
    """Memory: the most that was seen of all processes, and that the first had at any time."""


class ProgramSandbox:
    """A fresh place for programs: an empty work folder, no network, and limits.

    Unlike a code interpreter's session it keeps nothing alive between programs: what one leaves
    behind is ended before its result is given.

    Args:
        enclosure: what keeps the programs in (`choose.enclosure`).
        limits: sizes of the folders; and what a program may use where `run` says nothing else.

    Raises:
        SandboxUnavailable: it does not start; the message says why.
    """

    def __init__(self, enclosure: Enclosure, limits: ExecutorLimits | None = None) -> None:
        self.limits = limits or ExecutorLimits()
        self._cell = Cell(enclosure, self.limits)

    @property
    def work_folder(self) -> str:
        """Path of the work folder as the programs see it; they start in it."""
        return self._cell.work_folder

    def write_file(self, name: str, data: bytes) -> None:
        """Writes a file into the work folder.

        Raises:
            ValueError: the name leads out of the folder, or the data does not fit.
        """
        folder.write(self._cell.work_fd, name, data, self.limits)

    def read_file(self, name: str) -> bytes:
        """Returns a file of the work folder.

        Raises:
            ValueError: the name leads out of the folder, or names no regular file.
        """
        return folder.read(self._cell.work_fd, name, self.limits)

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        limits: ExecutorLimits | None = None,
    ) -> ProgramResult:
        """Runs a program in the work folder until it ends or exceeds a limit.

        Args:
            command: its absolute path and its arguments.
            environment: variables beside those that every program gets.
            limits: what it may use; sizes of folders are settled for all programs.
        """
        limits = limits or self.limits
        run = _Run(self._cell, limits)
        try:
            run.start(list(command), dict(environment or {}))
            return run.wait()
        finally:
            run.close()

    def stop(self) -> None:
        """Ends every process; a run of another thread returns at once, its sandbox gone."""
        self._cell.hang_up()

    def close(self) -> None:
        """Ends every process and removes the files."""
        self._cell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Run:
    """One program, from its start to its end."""

    def __init__(self, cell: Cell, limits: ExecutorLimits) -> None:
        self._cell = cell
        self._limits = limits
        self._room = limits.output_chars
        self._stop: Stop = ""
        self._began = self._deadline = 0.0
        self._written: dict[int, bytearray] = {}
        """By the descriptor from which it is read: standard output, then standard error."""
        self._selector = selectors.PollSelector()

    def start(self, command: list[str], environment: dict[str, str]) -> None:
        """Gives the order."""
        writers: list[int] = []
        try:
            for _ in range(2):
                reader, writer = os.pipe()
                writers.append(writer)
                self._written[reader] = bytearray()
                os.set_blocking(reader, False)
                self._selector.register(reader, selectors.EVENT_READ)
            self._selector.register(self._cell, selectors.EVENT_READ)
            self._began = time.monotonic()
            self._deadline = self._began + self._limits.wall_s
            order = {"command": command, "environment": environment}
            limits = asdict(self._limits)
            self._cell.send("run", descriptors=tuple(writers), limits=limits, **order)
        finally:
            for writer in writers:
                os.close(writer)

    def wait(self) -> ProgramResult:
        """Reads what the program writes until it has ended."""
        while True:
            ready = self._selector.select(max(self._deadline - time.monotonic(), 0.0))
            for key, _ in ready:
                if key.fileobj is not self._cell and not self._read(key.fd):
                    self._selector.unregister(key.fd)  # all who could write to it have closed it
            if any(key.fileobj is self._cell for key, _ in ready):
                event = self._cell.event()
                if event["event"] in ("ended", "gone"):
                    return self._result(event)
            if time.monotonic() >= self._deadline and not self._end("wall_s"):
                self._cell.hang_up()  # the sandbox itself does not answer any more

    def close(self) -> None:
        """Closes what was opened here."""
        self._selector.close()
        for reader in self._written:
            os.close(reader)

    def _read(self, reader: int) -> bool:
        """Takes a piece of output; returns whether there was any."""
        try:
            piece = os.read(reader, _PIECE)
        except BlockingIOError:
            return False
        kept = piece[: self._room]
        self._written[reader] += kept
        self._room -= len(kept)
        if len(kept) < len(piece):
            self._end("output_chars")
        return bool(piece)

    def _end(self, reason: Stop) -> bool:
        """Has the program ended; returns whether that is new."""
        if self._stop:
            return False
        self._stop = reason
        self._deadline = time.monotonic() + self._limits.start_s
        self._cell.send("kill", why=reason)
        return True

    def _result(self, event: dict[str, Any]) -> ProgramResult:
        seconds = time.monotonic() - self._began
        for reader in self._written:
            while self._read(reader):
                continue
        stopped: Stop = self._stop or event.get("excess", "sandbox")
        stdout, stderr = map(bytes, self._written.values())
        return ProgramResult(
            status=None if stopped else event["code"],
            stopped=stopped,
            stdout=stdout,
            stderr=stderr,
            seconds=seconds,
            cpu_s=event.get("cpu_s", 0.0),
            peak_bytes=event.get("peak_bytes", 0),
        )
