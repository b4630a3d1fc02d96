"""Prompts that a client wrote itself: the one place where text names special tokens."""

from __future__ import annotations

import re

from codegeex.fim import MIDDLE, PREFIX, SENTINELS, SUFFIX, FimFormat, Slot
from codegeex.hole import Hole
from glm_core.tokenizer.protocol import Tokenizer

_SENTINEL = re.compile("|".join(map(re.escape, SENTINELS)))


def text_ids(prompt: str, format: FimFormat | None, tokenizer: Tokenizer) -> list[int]:
    """Returns the tokens of a prompt in which the format's special tokens are written out.

    Raises:
        ValueError: the prompt is empty.
    """
    if not prompt:
        raise ValueError("the prompt is empty: give it some text")
    marks = () if format is None else (*format.marks, *format.stops)
    names = {name for name in marks if tokenizer.has(name)}
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    ids: list[int] = []
    for piece in re.split(f"({pattern})", prompt) if pattern else [prompt]:
        if piece in names:
            ids.append(tokenizer.token_id(piece))
        elif piece:
            ids += tokenizer.encode(piece)
    return ids


def hole_of_text(prompt: str, format: FimFormat | None) -> Hole | None:
    """Returns the prefix and suffix of a prompt in this format, or None if it is not one."""
    if format is None or MIDDLE not in prompt:
        return None
    found = {}
    for slot, mark in ((Slot.prefix, PREFIX), (Slot.suffix, SUFFIX)):
        if slot not in format.parts or mark not in prompt:
            return None
        text = prompt.rpartition(mark)[2]
        found[slot] = _SENTINEL.split(text, maxsplit=1)[0]
    return Hole(prefix=found[Slot.prefix], suffix=found[Slot.suffix])
