"""No sandbox: the code may do whatever the caller may. Only when it is asked for by name."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_core.agent.executor.enclosure import Launch, warden_command
from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.view import INSIDE, environment


class UnsafeLocal:
    """The same kernel and limits on the bare machine, for code that its user has read.

    The code sees the user's files and the network. Time, processor, memory and the number of
    processes are watched; the size of the work folder is not.

    Args:
        folders: what a sandbox would let the code read; here it can read everything.
    """

    name = "unsafe-local"
    is_sandboxed = False
    remedy = "use a directory for temporary files that can be written"

    def __init__(self, folders: tuple[str, ...] = ()) -> None:
        del folders

    @contextmanager
    def launch(self, limits: ExecutorLimits) -> Iterator[Launch]:
        root = Path(tempfile.mkdtemp(prefix="glm-unsafe-"))  # the warden removes it
        work, run, temporary = (root / name for name in ("data", "run", "tmp"))
        try:
            yield Launch(
                command=warden_command(),
                config={
                    "sandboxed": False,
                    "root": str(root),
                    "folders": {str(folder): 0o700 for folder in (work, run, temporary)},
                    "work_folder": str(work),
                    "run_folder": str(run),
                    "kernel_command": [sys.executable, "-I", "-B", str(INSIDE / "kernel_main.py")],
                    "environment": environment(str(work), str(temporary)),
                    "watch_ms": 500,  # it reads the whole machine's process table
                },
            )
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)  # the warden may never have run
            raise
