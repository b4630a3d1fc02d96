"""Which benchmark a file is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codegeex.evaluate.infilling import humaneval, safim
from codegeex.evaluate.infilling.task import HoleTask
from codegeex.evaluate.jsonl import read_rows


def is_infilling(path: Path) -> bool:
    """Returns whether a file holds holes, and not problems of HumanEval-X.

    Raises:
        ValueError: its first line is no JSON.
        OSError: it cannot be read.
    """
    _, row = next(read_rows(path), (0, {}))
    return safim.is_row(row) or humaneval.is_row(row)


def read_holes(paths: Sequence[Path], tests: Path | None = None) -> dict[str, HoleTask]:
    """Returns the holes of files of human-eval-infilling and SAFIM, by task_id.

    Args:
        paths: of the files.
        tests: HumanEval's own file, for lines of human-eval-infilling that have no tests.

    Raises:
        ValueError: a file is none of them, or a hole is in two.
        OSError: a file cannot be read.
    """
    tasks: dict[str, HoleTask] = {}
    for path in paths:
        _, row = next(read_rows(path), (0, {}))
        if safim.is_row(row):
            part = safim.read_tasks(path)
        elif humaneval.is_row(row):
            part = humaneval.read_tasks(path, tests)
        else:
            raise ValueError(
                f"{path} has no holes: its lines must have prompt and suffix, as those of "
                "human-eval-infilling, or prompt and eval_prompt, as those of SAFIM"
            )
        twice = tasks.keys() & part.keys()
        if twice:
            raise ValueError(f"hole {min(twice)!r} is in two of the files: give each file once")
        tasks |= part
    return tasks
