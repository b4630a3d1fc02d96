"""The code interpreter of one session: a kernel in an enclosure, started again when it dies."""

from __future__ import annotations

import importlib.util
import threading
import time
from types import TracebackType
from typing import Self

from glm_core.agent.executor import folder
from glm_core.agent.executor.cell import Cell
from glm_core.agent.executor.collect import Collector
from glm_core.agent.executor.enclosure import Enclosure
from glm_core.agent.executor.kernel import Kernel, KernelDied
from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.protocol import (
    CodeError,
    ExecutionResult,
    ExecutorError,
    FileEntry,
)
from glm_core.errors import MissingExtraError


class KernelExecutor:
    """An Executor (protocol.py) over any enclosure.

    Args:
        enclosure: what keeps the code in.
        limits: what the code may use.

    Raises:
        MissingExtraError: ipykernel is not installed.
    """

    def __init__(self, enclosure: Enclosure, limits: ExecutorLimits | None = None) -> None:
        if importlib.util.find_spec("ipykernel") is None:
            raise MissingExtraError('agent needs ipykernel: pip install -e ".[agent]"')
        self.enclosure = enclosure
        self.limits = limits or ExecutorLimits()
        self._running = threading.Lock()
        """Held by whoever uses the kernel."""
        self._using_cell = threading.Lock()
        """Held while the cell is made, closed, or its files are used."""
        self._cell: Cell | None = None
        self._kernel: Kernel | None = None
        self._has_died = False
        self._is_closed = False

    @property
    def is_sandboxed(self) -> bool:
        return self.enclosure.is_sandboxed

    def start(self) -> None:
        with self._running:
            self._started()

    def run(self, code: str, timeout_s: float | None = None) -> ExecutionResult:
        seconds = self.limits.seconds(timeout_s)
        with self._running:
            kernel, fresh = self._started(), self._has_died
            self._has_died = False
            collector, began = Collector(self.limits), time.monotonic()
            timed_out, death = False, ""
            try:
                timed_out = kernel.execute(code, seconds, collector)
            except KernelDied as error:
                death = self._bury(error)
                timed_out = time.monotonic() - began >= seconds
                collector.error = CodeError("KernelDied", death)
            return ExecutionResult(
                outputs=tuple(collector.outputs),
                error=collector.error,
                truncated=collector.truncated,
                timed_out=timed_out,
                kernel_died=death,
                fresh_kernel=fresh,
                duration_s=time.monotonic() - began,
            )

    def interrupt(self) -> None:
        cell = self._cell
        if cell is not None and self._running.locked():
            cell.send("interrupt")

    def files(self) -> list[FileEntry]:
        with self._using_cell:
            return folder.list_files(self._open_cell().work_fd)

    def read_file(self, name: str) -> bytes:
        with self._using_cell:
            return folder.read(self._open_cell().work_fd, name, self.limits)

    def write_file(self, name: str, data: bytes) -> None:
        with self._using_cell:
            folder.write(self._open_cell().work_fd, name, data, self.limits)

    def close(self) -> None:
        self._is_closed = True
        cell = self._cell
        if cell is not None:
            cell.hang_up()  # ends a run of another thread, which holds the lock
        with self._running:
            self._close_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _started(self) -> Kernel:
        """Returns the kernel, a new one where there is none or it died since the last run."""
        try:
            if self._kernel is not None:
                self._kernel.check()
        except KernelDied as error:
            self._bury(error)
        with self._using_cell:
            cell = self._open_cell()
        if self._kernel is None:
            try:
                self._kernel = Kernel(cell, self.limits)
            except KernelDied as error:
                self._bury(error)
                raise ExecutorError(
                    f"the kernel ended while it started: {error} {error.log}".strip()
                ) from error
        return self._kernel

    def _open_cell(self) -> Cell:
        if self._is_closed:
            raise ExecutorError("this code interpreter is closed: make a new one")
        if self._cell is None:
            self._cell = Cell(self.enclosure, self.limits)
        return self._cell

    def _bury(self, error: KernelDied) -> str:
        """Forgets a dead kernel; returns why it died."""
        self._has_died = True
        if error.cell_gone:
            self._close_all()
        elif self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        return str(error)

    def _close_all(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        with self._using_cell:
            if self._cell is not None:
                self._cell.close()
                self._cell = None
