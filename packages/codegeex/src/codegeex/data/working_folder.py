"""OUT.partial: where a folder is made before it appears, and goes on after a kill."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from codegeex.data.parts import write_whole
from glm_core.train.run_lock import run_lock

logger = logging.getLogger(__name__)

_PLAN = "plan.json"
_LOCK = ".lock"
_PATIENCE_SECONDS = 2.0
"""How long the workers of a call that was killed may hold its lock."""
RESULT = "result"


def partial_folder(out: Path) -> Path:
    """Where `out` is made."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def working_folder(out: Path, key: str) -> Iterator[Path]:
    """OUT.partial, locked, with what an earlier call of the same key left in it.

    At the end of the block its `result` becomes `out`. After a ValueError it is removed: the
    settings or sources have to change, and nothing in it fits them then. After anything else it
    stays, for the next call.

    Raises:
        ValueError: if something else is there, another process is at work, or it cannot be
            written.
    """
    partial = partial_folder(out)
    _check_free(out, partial)
    with _locked(out, partial):
        _begin(partial, key)
        try:
            yield partial
        except ValueError:
            shutil.rmtree(partial)
            raise
        if out.is_dir():
            out.rmdir()  # an empty one
        (partial / RESULT).rename(out)
        shutil.rmtree(partial)


def remove_leftover(out: Path, key: str) -> None:
    """Removes OUT.partial after a kill between the last two steps."""
    if _key_of(partial_folder(out)) == key:
        shutil.rmtree(partial_folder(out))


def _check_free(out: Path, partial: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} exists and was not made by codegeex prepare: name another")
    if partial.exists() and _key_of(partial) is None:
        if not partial.is_dir() or any(path.name != _LOCK for path in partial.iterdir()):
            raise ValueError(
                f"{partial} is in the way and was not made by codegeex prepare: move it, or name "
                "another --out"
            )


@contextmanager
def _locked(out: Path, partial: Path) -> Iterator[None]:
    with ExitStack() as stack:
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                stack.enter_context(run_lock(partial))
                break
            except ValueError as error:
                if not isinstance(error.__cause__, BlockingIOError):
                    raise ValueError(
                        f"--out {out} cannot be written ({error.__cause__}): choose another folder"
                    ) from error
                if time.monotonic() > end:
                    raise ValueError(
                        f"--out {out} is being made by another process: wait for it, or name "
                        "another"
                    ) from error
                time.sleep(0.05)
        yield


def _begin(partial: Path, key: str) -> None:
    """Empties the folder if it belongs to another call."""
    before = _key_of(partial)
    if before == key:
        logger.info("going on in %s", partial)
    elif before is not None:
        logger.info("settings or sources have changed: starting anew in %s", partial)
        (partial / _PLAN).unlink()
        for path in partial.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()
    write_whole(partial / _PLAN, {"key": key})
    (partial / RESULT).mkdir(exist_ok=True)


def _key_of(partial: Path) -> str | None:
    """What a working folder was begun for."""
    plan = partial / _PLAN
    return str(json.loads(plan.read_bytes())["key"]) if plan.is_file() else None
