"""A cursor as an editor gives it, and the text on both sides of it."""

from __future__ import annotations

import re
from enum import StrEnum

_LINE_END = re.compile(r"\r\n|\n|\r")


class Columns(StrEnum):
    """What an editor counts a character of a line in."""

    utf16 = "utf-16"
    """Code units: what language servers count unless something else was agreed."""
    utf8 = "utf-8"
    """Bytes."""
    utf32 = "utf-32"
    """Characters."""


def split_at(
    text: str, line: int, character: int, columns: Columns = Columns.utf16
) -> tuple[str, str]:
    """Returns the text before a cursor and behind it.

    A position inside a character is moved to its beginning, one beyond the end of a line to that
    end, as the Language Server Protocol has it; one line below the last is the end of the text.

    Args:
        text: the file.
        line: from 0.
        character: in the line, from 0.
        columns: what `character` counts.

    Raises:
        ValueError: the position is negative, or the file has too few lines.
    """
    if line < 0 or character < 0:
        raise ValueError(
            f"the position {line}:{character} is not in the file: lines and characters count from 0"
        )
    begin, end, count = 0, len(text), 0
    for found in _LINE_END.finditer(text):
        if count == line:
            end = found.start()
            break
        begin, count = found.end(), count + 1
    if count < line:
        if count + 1 < line:
            raise ValueError(
                f"line {line} is not in the file, whose last line is {count} (lines count from 0)"
            )
        begin = end = len(text)
    at = begin + _characters(text[begin:end], character, columns)
    return text[:at], text[at:]


def split_bytes(data: bytes, offset: int, name: str = "the file") -> tuple[str, str]:
    """Returns the text before an offset in a file and behind it.

    An offset inside a character is moved to its beginning.

    Args:
        data: the file as it is stored.
        offset: in bytes.
        name: of the file, for errors.

    Raises:
        ValueError: the offset is not in the file, or the file is not UTF-8.
    """
    if not 0 <= offset <= len(data):
        raise ValueError(f"offset {offset} is not in {name}, which has {len(data)} bytes")
    while 0 < offset < len(data) and data[offset] & 0xC0 == 0x80:
        offset -= 1
    return text_of(data[:offset], name), text_of(data[offset:], name)


def text_of(data: bytes, name: str = "the file") -> str:
    """Returns a file's text, its line endings as they are.

    Raises:
        ValueError: it is not UTF-8.
    """
    if b"\0" in data:
        raise ValueError(f"{name} holds NUL bytes: it is binary, not code")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not UTF-8 (byte {data[error.start]:#04x} at {error.start}): convert it, "
            "for example with iconv"
        ) from error


def _characters(line: str, character: int, columns: Columns) -> int:
    """Returns how many whole characters of a line a column has before it."""
    if columns is Columns.utf32 or line.isascii():
        return min(character, len(line))
    if columns is Columns.utf8:
        return len(line.encode("utf-8", "surrogatepass")[:character].decode("utf-8", "ignore"))
    count = 0
    for index, char in enumerate(line):
        count += 2 if ord(char) > 0xFFFF else 1
        if count > character:
            return index
    return len(line)
