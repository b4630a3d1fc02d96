"""human-eval-infilling: functions of HumanEval with lines or spans missing, judged by its tests.

Source: arXiv 2207.14255; openai/human-eval-infilling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from codegeex.evaluate.infilling.task import HoleTask, first_line, line_is_over, never
from codegeex.evaluate.jsonl import Row, field, read_rows
from codegeex.evaluate.work import Work
from codegeex.hole import Hole, Mode

_SUITE = re.compile(r"^([A-Za-z]+?)Infilling(Light)?/")
_NUMBER = re.compile(r"HumanEval/\d+")


def is_row(row: Row) -> bool:
    """Returns whether an object is a hole of this benchmark."""
    return "prompt" in row and "suffix" in row


def read_tasks(path: Path, tests: Path | None = None) -> dict[str, HoleTask]:
    """Returns the holes of a file, by task_id.

    Args:
        path: the benchmark.
        tests: HumanEval's own file, for a benchmark whose lines have no tests.

    Raises:
        ValueError: a line is none of the benchmark, or its tests are nowhere.
        OSError: a file cannot be read.
    """
    known = {} if tests is None else {str(row.get("task_id")): row for _, row in read_rows(tests)}
    tasks = [_task(row, f"{path}, line {number}", known) for number, row in read_rows(path)]
    return {task.task_id: task for task in tasks}


def _task(row: Row, where: str, known: Mapping[str, Row]) -> HoleTask:
    task_id = field(row, "task_id", where)
    number = _NUMBER.search(task_id)
    source = row if "test" in row else known.get(number[0] if number else "", row)
    if "test" not in source:
        raise ValueError(
            f"{where}: {task_id!r} has no tests: give HumanEval's own file with --tests"
        )
    prefix, suffix = field(row, "prompt", where), field(row, "suffix", where)
    call = f"check({field(source, 'entry_point', where)})"
    tests = f"{suffix}\n{field(source, 'test', where)}\n\n{call}\n"
    suite = _suite(task_id)
    one_line = suite == "single-line"
    expected = field(row, "canonical_solution", where, default="")
    return HoleTask(
        task_id=task_id,
        suite=suite,
        hole=Hole(
            prefix=prefix,
            suffix=suffix,
            language="python",
            mode=Mode.line if one_line else Mode.block,
        ),
        expected=expected,
        is_over=line_is_over if one_line else never,
        truncate=partial(_one_line, suffix) if one_line else str,
        matches=lambda completion: bool(expected) and completion == expected,
        work=lambda completion, number: Work(
            task_id=task_id,
            number=number,
            language="python",
            suite=suite,
            source=f"{prefix}{completion}{tests}",
        ),
    )


def _suite(task_id: str) -> str:
    """Returns single-line, multi-line, random-span or random-span-light."""
    found = _SUITE.match(task_id)
    if found is None:
        return task_id.partition("/")[0]
    words = re.findall("[A-Z][a-z]*", found[1] + (found[2] or ""))
    return "-".join(words).lower()


def _one_line(suffix: str, completion: str) -> str:
    """Returns the line, with its end where the suffix begins with another line."""
    line = first_line(completion)
    return line if suffix.startswith("\n") or not suffix else f"{line}\n"
