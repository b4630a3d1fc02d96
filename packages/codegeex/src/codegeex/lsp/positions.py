"""Columns of a line, in what an editor counts them in.

Language servers and editors agree on one of three units; UTF-16 unless something else was agreed.
"""

from __future__ import annotations

UTF8, UTF16, UTF32 = "utf-8", "utf-16", "utf-32"


def index_of(line: str, column: int, encoding: str = UTF16) -> int:
    """Returns how many characters of a line a column has before it.

    A column inside a character is moved to its beginning, one beyond the line to its end.

    Args:
        line: without its end.
        column: from 0.
        encoding: what the column counts: utf-8, utf-16 or utf-32.
    """
    if encoding == UTF32 or line.isascii():
        return min(column, len(line))
    count = 0
    for index, char in enumerate(line):
        count += _width(char, encoding)
        if count > column:
            return index
    return len(line)


def column_of(line: str, encoding: str = UTF16) -> int:
    """Returns how wide a text is that has no line end."""
    if encoding == UTF32 or line.isascii():
        return len(line)
    return sum(_width(char, encoding) for char in line)


def _width(char: str, encoding: str) -> int:
    code = ord(char)
    if encoding == UTF8:
        return 1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF)
    return 1 + (code > 0xFFFF)
