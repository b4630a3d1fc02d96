"""The text argument that `generate` and `explain` share."""

from __future__ import annotations

import sys


def given_text(argument: str) -> str:
    """The text itself, or standard input for ``-`` without the line breaks at its end.

    Raises:
        ValueError: it is not UTF-8.
    """
    place = "standard input" if argument == "-" else "the text"
    try:
        text = sys.stdin.read().rstrip("\r\n") if argument == "-" else argument
        text.encode("utf-8")  # bytes that are no UTF-8 arrive as lone surrogates
    except UnicodeError as error:
        raise ValueError(f"{place} is not UTF-8: convert it, for example with iconv") from error
    return text
