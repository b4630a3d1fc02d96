"""What every code interpreter offers, whatever keeps its code in."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

WORK_FOLDER = "/mnt/data"
"""Where the code finds the session's files, as ChatGLM3 was taught."""


class ExecutorError(RuntimeError):
    """The code interpreter itself failed, not the code that it ran."""


class SandboxUnavailable(ExecutorError):
    """No sandbox works on this machine; the message says why and what to install."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that the code showed."""

    mime: str
    """image/png, image/jpeg, image/gif or image/svg+xml."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Output:
    """One piece of what a run gave, in the order in which it came."""

    kind: Literal["stdout", "stderr", "result", "image"]
    """`result` is the value of the last expression, or what `display` was given."""
    text: str = ""
    image: Image | None = None


@dataclass(frozen=True, slots=True)
class CodeError:
    """The exception that ended a run."""

    name: str
    """Its class; `KernelDied` where the whole kernel ended."""
    value: str
    traceback: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutionResult:
    """All that one run gave."""

    outputs: tuple[Output, ...]
    error: CodeError | None
    truncated: bool
    """Some of the output was beyond a limit and is not here."""
    timed_out: bool
    kernel_died: str
    """Why the kernel ended in this run, and with it all variables; empty where it lives."""
    fresh_kernel: bool
    """This run began in a new kernel because the one before had died."""
    duration_s: float

    @property
    def stdout(self) -> str:
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        return self._text("stderr")

    @property
    def text(self) -> str:
        """The value of the last expression and what was displayed, as text."""
        return self._text("result")

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(output.image for output in self.outputs if output.image is not None)

    def _text(self, kind: str) -> str:
        return "".join(output.text for output in self.outputs if output.kind == kind)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the work folder."""

    name: str
    """Relative to the work folder, with `/` between folders."""
    size: int
    """In bytes."""


class Executor(Protocol):
    """Runs Python code, one run after the other, in one interpreter that keeps its variables.

    Calls block; an asynchronous caller uses `asyncio.to_thread`. Any thread may call, and
    `interrupt` and `close` work while another thread is in `run`.
    """

    @property
    def is_sandboxed(self) -> bool:
        """Whether the code is kept from the machine."""

    def start(self) -> None:
        """Starts the kernel; `run` does it too. Does nothing when it runs already.

        Raises:
            SandboxUnavailable: the sandbox does not work on this machine.
            ExecutorError: the kernel does not start.
        """

    def run(self, code: str, timeout_s: float | None = None) -> ExecutionResult:
        """Runs code and waits for its end, or stops it after `timeout_s` seconds.

        Whatever the code does, the answer is a result: its exception is `error`, and a kernel that
        died is named in `kernel_died`; the next run then starts a fresh one.
        """

    def interrupt(self) -> None:
        """Stops the run of another thread as Ctrl-C would; does nothing when none runs."""

    def files(self) -> list[FileEntry]:
        """Returns the files of the work folder, sorted by name; links are left out."""

    def read_file(self, name: str) -> bytes:
        """Returns a file of the work folder.

        Raises:
            ValueError: the name leads out of the folder, or names no regular file.
        """

    def write_file(self, name: str, data: bytes) -> None:
        """Writes a file into the work folder.

        Raises:
            ValueError: the name leads out of the folder, or the data does not fit.
        """

    def close(self) -> None:
        """Ends every process of the session and removes its files."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
