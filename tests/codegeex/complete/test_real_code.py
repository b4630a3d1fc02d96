"""Completions that are right, and go on beyond the hole, against code that people wrote.

The file itself is the model: what it says from the cursor on is the text that the model writes, up
to the end of the hole and then on. Where holes end is told by Python's own parser.
"""

from __future__ import annotations

import ast
import colorsys
import configparser
import csv
import fnmatch
import inspect
import random
import shlex
import textwrap
from collections.abc import Callable, Iterator

import pytest

from codegeex.hole import Hole, Mode

from .shapes import shaped

MODULES = (colorsys, configparser, csv, fnmatch, shlex, textwrap)
Span = tuple[int, int]


def _starts(text: str) -> list[int]:
    """Where each line begins."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _bodies(text: str) -> Iterator[Span]:
    """From the end of each function's head to the end of its body."""
    starts, lines = _starts(text), text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            head = node.body[0].lineno - 2
            if lines[head].endswith(":"):  # and no comment stands between
                end = node.end_lineno - 1
                yield starts[head] + len(lines[head]), starts[end] + len(lines[end])


def _rests(text: str) -> Iterator[Span]:
    """From a statement inside each function to the end of its body."""
    starts, lines = _starts(text), text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and len(node.body) > 2 and node.end_lineno is not None:
            first, end = node.body[1], node.end_lineno - 1
            yield starts[first.lineno - 1] + first.col_offset, starts[end] + len(lines[end])


def _lines(text: str) -> Iterator[Span]:
    """From somewhere in each line to its end."""
    rng = random.Random(0)
    for start, line in zip(_starts(text), text.splitlines(), strict=False):
        if len(line.strip()) > 4:
            begin = rng.randrange(len(line) - len(line.lstrip()), len(line) - 1)
            yield start + begin, start + len(line)


def _arguments(text: str) -> Iterator[Span]:
    """Between the brackets of calls that stand on one line."""
    starts, lines = _starts(text), text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and node.args and node.lineno == node.end_lineno:
            begin, end = node.args[0].col_offset, (node.end_col_offset or 0) - 1
            line = lines[node.lineno - 1]
            if line[begin - 1 : begin] == "(" and line[end : end + 1] == ")" and line.isascii():
                yield starts[node.lineno - 1] + begin, starts[node.lineno - 1] + end


@pytest.mark.parametrize(
    ("spans", "every", "mode", "beyond"),
    [
        (_bodies, 1, Mode.block, 0),
        (_bodies, 1, Mode.block, 400),
        (_rests, 1, Mode.block, 0),
        (_rests, 1, Mode.block, 400),
        (_arguments, 5, Mode.block, 0),
        (_arguments, 5, Mode.block, 200),
        (_lines, 8, Mode.block, 0),
        (_lines, 8, Mode.line, 200),
    ],
)
def test_right_text_is_shown_and_nothing_beyond_it(
    spans: Callable[[str], Iterator[Span]], every: int, mode: Mode, beyond: int
) -> None:
    wrong, count = [], 0
    for module in MODULES:
        text = inspect.getsource(module)
        for begin, end in list(spans(text))[::every]:
            hole = Hole(prefix=text[:begin], suffix=text[end:], language="python", mode=mode)
            shown = shaped(hole, [text[begin : end + beyond]]).shown
            count += 1
            if shown != text[begin:end].rstrip():
                wrong.append((text[max(begin - 80, 0) : begin], text[begin:end], shown))
    assert count > 40 and not wrong
