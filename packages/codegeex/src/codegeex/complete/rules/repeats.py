"""Models that go round in circles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codegeex.complete.rules.block import Line, lines_of
from codegeex.complete.rules.rule import Stop

_TIMES = 3
_LONGEST_CYCLE = 4
"""Lines."""
_UNITS = range(1, 33)
"""Characters that are repeated within a line."""
_LEAST_RUN = 120
"""Characters that repeat a unit when it is too much."""
_SHOWN = 24
"""Of those, the fewest that are kept."""


@dataclass(frozen=True)
class Repeats:
    """The text ends where it says the same lines for the third time, and keeps them once.

    Within a line it ends where a short piece has been said over and over, and keeps it a few times.

    Args:
        before: the cursor's line before it.
    """

    before: str = ""

    def look(self, text: str) -> Stop | None:
        """Finds the first circle."""
        lines = lines_of(text, self.before)
        stops = [*_circles([line for line in lines if line.is_whole]), *_stutters(lines)]
        return min(stops, key=lambda stop: (stop.at, stop.keep), default=None)

    def sure(self, text: str) -> int:
        """All but what goes round for the second time."""
        lines = lines_of(text, self.before)
        begins = [_begin_of_run(lines, size) for size in range(1, _LONGEST_CYCLE + 1)]
        begins.append(_begin_of_stutter(lines))
        return min([len(text.rstrip()), *(begin for begin in begins if begin is not None)])


def _circles(lines: Sequence[Line]) -> Iterator[Stop]:
    """Yields for each size of a cycle where it has come often enough."""
    for size in range(1, _LONGEST_CYCLE + 1):
        run = 0
        for index in range(size, len(lines)):
            run = run + 1 if lines[index].text == lines[index - size].text else 0
            if run == (_TIMES - 1) * size:
                yield Stop(lines[index].end + 1, lines[index - run].end, "repeated lines")
                break


def _begin_of_run(lines: Sequence[Line], size: int) -> int | None:
    """Returns the end of the line before the last lines that repeat a cycle; None if none do."""
    begin = None
    for index in range(len(lines) - 1, size - 1, -1):
        line, earlier = lines[index], lines[index - size]
        same = line.text == earlier.text
        if not same and (line.is_whole or not earlier.text.startswith(line.text)):
            break
        begin = lines[index - 1].end
    return begin


def _stutters(lines: Sequence[Line]) -> Iterator[Stop]:
    """Yields for each line where a unit has come over and over."""
    for line in lines:
        text = _written(line)
        for begin in range(len(text) - _LEAST_RUN + 1):
            run = text[begin : begin + _LEAST_RUN]
            size = next((size for size in _UNITS if run[:-size] == run[size:]), None)
            if size is not None:
                begin += line.begin
                yield Stop(begin + _LEAST_RUN, begin + _kept(size), "repeated text")
                break


def _begin_of_stutter(lines: Sequence[Line]) -> int | None:
    """Returns where what is shown of a unit ends that the text's end repeats; None if none."""
    if not lines or lines[-1].is_whole:
        return None
    line, found = lines[-1], []
    text = _written(line)
    for size in _UNITS:
        length = _kept(size) + 1
        tail = text[-length:]
        if len(tail) < length or tail[:-size] != tail[size:]:
            continue
        begin = len(text) - length
        while begin and text[begin - 1] == text[begin - 1 + size]:
            begin -= 1
        found.append(line.begin + begin + _kept(size))
    return min(found, default=None)


def _kept(size: int) -> int:
    """How much is kept of a text that repeats a unit: whole units, two at least."""
    return max(-(-_SHOWN // size), 2) * size


def _written(line: Line) -> str:
    """What the completion wrote of a line."""
    return line.text[len(line.text) - (line.end - line.begin) :]
