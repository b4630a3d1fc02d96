"""Prompts that a client wrote itself: the one place where text names special tokens."""

from __future__ import annotations

import re

from codegeex.fim import FimFormat, Mark, Slot
from codegeex.hole import Hole
from glm_core.tokenizer.protocol import Tokenizer


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
    if format is None:
        return None
    before = {
        after: mark.name
        for mark, after in zip(format.parts, format.parts[1:], strict=False)
        if isinstance(mark, Mark)
    }
    marks = set(format.marks)
    found = {}
    for slot in (Slot.prefix, Slot.suffix):
        mark = before.get(slot) or before.get(Slot.path_line, "")
        begin = prompt.find(mark)
        if not mark or begin < 0:
            return None
        begin += len(mark)
        ends = [end for name in marks if (end := prompt.find(name, begin)) >= 0]
        if not ends and slot is not _last_slot(format):
            return None
        found[slot] = prompt[begin : min(ends, default=len(prompt))]
    return Hole(prefix=found[Slot.prefix], suffix=found[Slot.suffix])


def _last_slot(format: FimFormat) -> Slot:
    return Slot.prefix if format.suffix_first else Slot.suffix
