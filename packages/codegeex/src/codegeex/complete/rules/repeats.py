"""Models that go round in circles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codegeex.complete.rules.block import Line, lines_of
from codegeex.complete.rules.rule import Stop

_TIMES = 3
_LONGEST_CYCLE = 4
"""Lines."""
_LONGEST_UNIT = 32
_LEAST_RUN = 120
"""Characters of one line that repeat a unit."""


@dataclass(frozen=True)
class Repeats:
    """The text ends where it says the same lines for the third time, and keeps them once.

    Within a line it ends where a short piece has been said over and over.

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
        """All but lines that go round for the second time."""
        lines = lines_of(text, self.before)
        begins = [_begin_of_run(lines, size) for size in range(1, _LONGEST_CYCLE + 1)]
        return min((begin for begin in begins if begin is not None), default=len(text.rstrip()))


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
    for line in lines:
        text = line.text[len(line.text) - (line.end - line.begin) :]
        for begin in range(len(text) - _LEAST_RUN + 1):
            run = text[begin : begin + _LEAST_RUN]
            if any(run[:-size] == run[size:] for size in range(1, _LONGEST_UNIT + 1)):
                end = line.begin + begin + _LEAST_RUN
                yield Stop(end, end, "repeated text")
                break
