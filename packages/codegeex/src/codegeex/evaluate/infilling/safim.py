"""SAFIM: blocks, control expressions and calls missing from programs that read and write.

Source: arXiv 2403.04814; the files of gonglinyuan/safim.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from codegeex.evaluate.infilling.task import HoleTask
from codegeex.evaluate.infilling.truncate import IS_OVER, TRUNCATE
from codegeex.evaluate.jsonl import Row, field, read_rows
from codegeex.evaluate.work import Example, Work
from codegeex.hole import Hole, Mode
from codegeex.languages import find_language

HOLE = "{{completion}}"
_KINDS = ("block", "control", "api")


def is_row(row: Row) -> bool:
    """Returns whether an object is a hole of this benchmark."""
    return "eval_prompt" in row


def read_tasks(path: Path) -> dict[str, HoleTask]:
    """Returns the holes of a file, by task_id.

    Raises:
        ValueError: a line is none of the benchmark.
        OSError: the file cannot be read.
    """
    tasks = [_task(row, f"{path}, line {number}", path.name) for number, row in read_rows(path)]
    return {task.task_id: task for task in tasks}


def _task(row: Row, where: str, file_name: str) -> HoleTask:
    task_id = field(row, "task_id", where)
    language = find_language(field(row, "lang", where)).key
    before, behind = _split(field(row, "eval_prompt", where), HOLE, where)
    kind = _kind(task_id, file_name, where)
    expected = field(row, "ground_truth", where)
    examples = _examples(row.get("unit_tests"), where)
    prefix, suffix = _split(field(row, "prompt", where), _placeholder(language), where)
    work = Work(task_id=task_id, language=language, suite=kind, source="", examples=examples)
    return HoleTask(
        task_id=task_id,
        suite=kind,
        hole=Hole(
            prefix=prefix,
            suffix=suffix,
            language=language,
            mode=Mode.block if kind == "block" else Mode.line,
        ),
        expected=expected,
        is_over=partial(IS_OVER[kind], language, before),
        truncate=partial(TRUNCATE[kind], language, before, behind),
        matches=partial(operator.eq, expected)
        if examples
        else partial(says_the_same, expected, language),
        work=partial(_filled, work, before, behind) if examples else None,
    )


def says_the_same(expected: str, language: str, completion: str) -> bool:
    """Returns whether two expressions differ in white space only, or, as calls in Python, in the
    order of named arguments."""
    one, other = (re.sub(r"\s+", "", text) for text in (expected, completion))
    if one == other:
        return True
    if language != "python":
        return False
    try:
        calls = [ast.parse(text.strip(), mode="eval").body for text in (expected, completion)]
    except (SyntaxError, ValueError):
        return False
    if not all(isinstance(call, ast.Call) for call in calls):
        return False
    return _call_parts(calls[0]) == _call_parts(calls[1])


def _call_parts(call: Any) -> tuple[str, list[str], dict[str | None, str]]:
    named = {keyword.arg: ast.dump(keyword.value) for keyword in call.keywords}
    return ast.dump(call.func), [ast.dump(argument) for argument in call.args], named


def _filled(work: Work, before: str, behind: str, completion: str, number: int) -> Work:
    return replace(work, number=number, source=before + completion + behind)


def _placeholder(language: str) -> str:
    words = "TODO: Your code here"  # as the files have it
    return f"# {words}" if language == "python" else f"/* {words} */"


def _split(text: str, hole: str, where: str) -> tuple[str, str]:
    parts = text.split(hole)
    if len(parts) != 2:
        raise ValueError(f"{where}: the text must have one {hole!r}, and has {len(parts) - 1}")
    return parts[0], parts[1]


def _kind(task_id: str, file_name: str, where: str) -> str:
    for name in (task_id, file_name):
        for kind in _KINDS:
            if name.startswith(kind):
                return kind
    raise ValueError(
        f"{where}: neither task_id {task_id!r} nor the file's name begins with block, control or "
        "api: rename the file to what it holds"
    )


def _examples(tests: object, where: str) -> tuple[Example, ...]:
    """Returns what a program must write for what it reads; the list may be a text of JSON."""
    if isinstance(tests, str) and tests.strip():
        try:
            tests = json.loads(tests)
        except ValueError as error:
            raise ValueError(f"{where}: unit_tests is no JSON: {error}") from error
    if not tests:
        return ()
    try:
        return tuple(
            Example(stdin=str(test["input"]), outputs=tuple(map(str, test["output"])))
            for test in tests  # type: ignore[attr-defined]
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{where}: unit_tests must be a list of objects with input and output ({error})"
        ) from error
