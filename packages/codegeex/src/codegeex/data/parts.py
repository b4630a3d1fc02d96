"""Work in parts on several processes; a part that is done is a file, and not done again.

Each part writes its own files, the last of them by renaming, so after a kill at any moment the
same call does what is left and nothing else.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_all_start_methods, get_context, parent_process
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from glm_core.checkpoint.files import write_json
from glm_core.progress import Progress

P = TypeVar("P")


class Part(NamedTuple, Generic[P]):
    """One call of a stage's function."""

    work: P
    done: Path
    """The file that exists once the part is done."""
    megabytes: float


def run_parts(
    what: str, function: Callable[[P, Path], None], parts: Sequence[Part[P]], workers: int
) -> float:
    """Calls `function(work, done)` for every part that is not done; tells MB done by this call.

    Args:
        what: beginning of the progress line.
        function: picklable; must create `done`, last of all.
        workers: processes.

    Raises:
        Exception: the first that a call raised; parts that are running are finished first.
    """
    left = [part for part in parts if not part.done.exists()]
    progress = Progress(what, sum(part.megabytes for part in left), "MB")
    if workers <= 1 or len(left) <= 1:
        for part in left:
            function(part.work, part.done)
            progress.add(part.megabytes)
    else:
        _on_processes(function, left, workers, progress)
    return sum(part.megabytes for part in left)


def write_whole(path: Path, value: Any) -> None:
    """Writes JSON; the file appears whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    write_json(temporary, value)
    temporary.rename(path)


def _on_processes(
    function: Callable[[P, Path], None],
    parts: Sequence[Part[P]],
    workers: int,
    progress: Progress,
) -> None:
    method = "fork" if "fork" in get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(workers, get_context(method), initializer=_begin_worker)
    waiting = list(reversed(parts))
    running: dict[Future[None], Part[P]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < 2 * workers:
                part = waiting.pop()
                running[pool.submit(function, part.work, part.done)] = part
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                progress.add(running.pop(future).megabytes)
                future.result()
    except BrokenProcessPool as error:
        raise OSError(
            "a process was ended from outside, perhaps for its memory: the same command goes on; "
            "--workers 1 needs less memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Ctrl-C is for the parent; a parent that was killed takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a process has one core
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
