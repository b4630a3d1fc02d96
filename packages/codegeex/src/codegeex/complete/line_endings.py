"""Line endings: a model reads and writes LF, a file gets back what it has."""

from __future__ import annotations

import re
from dataclasses import replace

from codegeex.hole import Hole

LF, CRLF, CR = "\n", "\r\n", "\r"
_ANY = re.compile(r"\r\n|\n|\r")


def line_ending(prefix: str, suffix: str = "") -> str:
    """Returns what ends most lines of a file; of equally many, what the line before has."""
    counts = {LF: 0, CRLF: 0, CR: 0}
    for part in (prefix, suffix):
        crlf = part.count(CRLF)
        counts[CRLF] += crlf
        counts[LF] += part.count(LF) - crlf
        counts[CR] += part.count(CR) - crlf
    most = max(counts.values())
    if most == 0:
        return LF
    usual = [ending for ending, count in counts.items() if count == most]
    before = _ANY.findall(prefix[-10_000:])
    return before[-1] if before and before[-1] in usual else usual[0]


def to_lf(text: str) -> str:
    """Returns the text with every line ended by LF."""
    return text if CR not in text else text.replace(CRLF, LF).replace(CR, LF)


def with_lf(hole: Hole) -> tuple[Hole, str]:
    """Returns the hole with every line ended by LF, and what ended its file's lines."""
    prefix, suffix = hole.prefix, hole.suffix
    if prefix.endswith(CR) and suffix.startswith(LF):  # the cursor stands in a line ending
        prefix, suffix = prefix[:-1], CR + suffix
    references = tuple(replace(one, text=to_lf(one.text)) for one in hole.references)
    lines = replace(hole, prefix=to_lf(prefix), suffix=to_lf(suffix), references=references)
    return lines, line_ending(prefix, suffix)


class ToLF:
    """`to_lf` for a text that comes in pieces: a CR waits for what follows it."""

    def __init__(self) -> None:
        self._waits = False

    def push(self, piece: str) -> str:
        """Returns what is known with this piece."""
        if not self._waits and CR not in piece:
            return piece
        text = CR + piece if self._waits else piece
        self._waits = text.endswith(CR)
        return to_lf(text.removesuffix(CR) if self._waits else text)
