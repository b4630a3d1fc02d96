"""Holes in source files that a model has not seen: single lines and several lines.

A single line is what an editor asks for: the cursor stands behind the indentation, and the rest of
the line is wanted. Several lines are whole ones, as many as a block of code might have.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from codegeex.evaluate.infilling.task import HoleTask, never
from codegeex.hole import Hole, Mode
from codegeex.languages import find_language, language_of_path

SINGLE, MULTI = "single-line", "multi-line"
_MOST_LINES = 8
_MOST_BYTES = 1 << 20
_LEAST_CHARS = 4
"""Of a line that is worth guessing: not a bracket alone."""
_SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})


def draw_tasks(
    folder: Path, num_holes: int, suite: str = SINGLE, languages: Sequence[str] = (), seed: int = 0
) -> dict[str, HoleTask]:
    """Returns holes by task_id, the same for the same files and seed.

    Args:
        folder: with source files, at any depth; or one file.
        num_holes: how many are wanted; there are fewer where the files have fewer lines.
        suite: `single-line` or `multi-line`.
        languages: to use, in any spelling; none: all that are known by a file's name.
        seed: of the draws.

    Raises:
        ValueError: no file can be used.
        OSError: the folder cannot be read.
    """
    wanted = {find_language(name).key for name in languages}
    places = [
        (path, index)
        for path in _files(folder, wanted)
        for index, line in enumerate(_text(path).split("\n"))
        if _is_worth(line)
    ]
    if not places:
        raise ValueError(
            f"{folder} has no source file with lines to guess: name a folder with code, and a "
            "--language that it holds"
        )
    chosen = random.Random(seed).sample(places, min(num_holes, len(places)))
    root = folder if folder.is_dir() else folder.parent
    tasks = [_task(path, root, index, suite, seed) for path, index in sorted(chosen)]
    return {task.task_id: task for task in tasks}


def _task(path: Path, root: Path, index: int, suite: str, seed: int) -> HoleTask:
    name = path.relative_to(root).as_posix()
    lines = _text(path).split("\n")
    end = index + 1
    if suite == MULTI:
        draws = random.Random(f"{seed} {name} {index}")
        end = min(len(lines), index + draws.randint(2, _MOST_LINES))
        while end > index + 1 and not lines[end - 1].strip():
            end -= 1
    indent = lines[index][: len(lines[index]) - len(lines[index].lstrip())]
    expected = "\n".join(lines[index:end]).removeprefix(indent)
    known = language_of_path(name)
    one_line = suite == SINGLE
    return HoleTask(
        task_id=f"{suite}/{name}:{index + 1}",
        suite=suite,
        hole=Hole(
            prefix="".join(f"{line}\n" for line in lines[:index]) + indent,
            suffix="".join(f"\n{line}" for line in lines[end:]),
            path=name,
            language=known.key if known else "",
            mode=Mode.line if one_line else Mode.block,
        ),
        expected=expected,
        is_over=_line_is_over if one_line else never,
        truncate=_rest_of_line if one_line else str,
        matches=lambda completion: completion.rstrip() == expected.rstrip(),
    )


def _line_is_over(text: str, piece: str) -> bool:
    return "\n" in piece


def _rest_of_line(text: str) -> str:
    return text.partition("\n")[0]


def _files(folder: Path, wanted: set[str]) -> Iterator[Path]:
    """Yields the files that can be used, sorted."""
    if folder.is_file():
        found = [folder]
    elif folder.is_dir():
        found = sorted(folder.rglob("*"))
    else:
        raise FileNotFoundError(f"{folder} does not exist")
    for path in found:
        language = language_of_path(path.name)
        inner = path.relative_to(folder).parts
        if language is None or (wanted and language.key not in wanted):
            continue
        if any(part in _SKIPPED or part.startswith(".") for part in inner):
            continue
        if path.is_file() and path.stat().st_size <= _MOST_BYTES and _text(path):
            yield path


def _text(path: Path) -> str:
    """Returns a file's text; an empty one where it is none."""
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in text else text.replace("\r\n", "\n")


def _is_worth(line: str) -> bool:
    return len(line.strip()) >= _LEAST_CHARS
