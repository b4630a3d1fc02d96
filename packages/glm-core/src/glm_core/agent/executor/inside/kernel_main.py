"""The kernel's own program: ipykernel, with output that keeps its order and its size."""

from __future__ import annotations

import os
import sys
from typing import Any

from ipykernel import kernelapp
from ipykernel.iostream import IOPubThread, OutStream


class QuietThread(IOPubThread):
    """Sends what the kernel publishes, without the TCP port that ipykernel opens for children."""

    def _setup_pipe_in(self) -> None:
        """Opens nothing: a child's output comes through the stream's file descriptor."""


class OrderedStream(OutStream):
    """Standard output or standard error: in order with each other, and no more than is kept.

    ipykernel collects each stream for a fifth of a second; written to in turns, they would come
    out one after the other. And what nobody will keep is not sent.
    """

    room = 0
    """Characters that this run may still send."""
    last: Any = None
    """The stream that was written to last."""

    def write(self, string: str) -> int:
        """Writes text; what goes beyond the room is dropped."""
        if os.getpid() != self._master_pid:
            os.write(self._original_stdstream_fd, string.encode(errors="replace"))
            return len(string)
        kept = string[: max(OrderedStream.room, 0)]
        OrderedStream.room -= len(string)
        if kept:
            if OrderedStream.last not in (None, self):
                OrderedStream.last.flush()
            OrderedStream.last = self
            super().write(kept)
        return len(string)


def main(connection_file: str, output_chars: int) -> None:
    """Serves one kernel.

    Args:
        connection_file: jupyter's, with transport `ipc`.
        output_chars: characters of text that the executor keeps of one run.
    """

    def begin_run() -> None:
        OrderedStream.room = output_chars + 1  # one more, so that the executor sees that it was cut

    program: Any = kernelapp
    program.IOPubThread = QuietThread
    app = program.IPKernelApp.instance(
        connection_file=connection_file, outstream_class="__main__.OrderedStream"
    )
    app.config.HistoryManager.enabled = False
    app.config.InteractiveShell.xmode = "Plain"  # a traceback that fits into an observation
    app.initialize([])
    app.shell.events.register("pre_execute", begin_run)
    begin_run()
    app.start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
