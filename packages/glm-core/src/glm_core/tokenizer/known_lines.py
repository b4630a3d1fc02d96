"""Texts that come again and again with a few letters more, as an editor's or a conversation's do:
their lines are read into tokens once.

A byte-level BPE first cuts a text into pieces and then merges inside each. No piece goes from a
character that is no white space into white space, and what a piece is does not depend on what
stands before it; so between a line's last character and its line break a text can be cut without
changing a token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_CUT = re.compile(r"(?<=[!-~])(?=\n)")
"""Before a line break that follows a visible ASCII character."""
_REMEMBERED = 50_000
_LONGEST = 1_000
"""Characters of a line that is remembered."""
_CUTTERS = ("Digits", "ByteLevel")


def may_cut(settings: Mapping[str, Any]) -> bool:
    """Whether a tokenizer cuts texts as it is said above.

    Args:
        settings: of the tokenizer, as its `tokenizer.json` has them.
    """
    cutter = settings.get("pre_tokenizer") or {}
    steps = cutter.get("pretokenizers", [cutter])
    return (
        not any(settings.get(name) for name in ("normalizer", "added_tokens", "post_processor"))
        and all(step.get("type") in _CUTTERS for step in steps)
        and any(step.get("use_regex") and not step.get("add_prefix_space") for step in steps)
    )


class KnownLines:
    """A tokenizer that remembers lines. Thread-safe as far as `encode` is.

    Args:
        encode: gives the ids of a text.
    """

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self._encode = encode
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, those that its tokenizer would give."""
        ids: list[int] = []
        for line in _CUT.split(text):
            ids += self._known.get(line) or self._read(line)
        return ids

    def _read(self, line: str) -> list[int]:
        ids = self._encode(line)
        if len(line) <= _LONGEST:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[line] = ids
        return ids
