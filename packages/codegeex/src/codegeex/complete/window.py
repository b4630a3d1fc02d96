"""What of a file is looked at: never more than a model could read."""

from __future__ import annotations

from dataclasses import replace

from codegeex.hole import Hole

CHARS_PER_TOKEN = 16
"""More than code has: what the model can read is never cut here."""
MOST_CHARS = 200_000
"""Of a file before the cursor, and behind it, that are looked at though no model reads them."""
BYTE_ORDER_MARK = "\ufeff"


def visible(hole: Hole, context: int) -> Hole:
    """Returns the hole with the far ends of its file cut off, so that no file is too large.

    Args:
        context: tokens that the model can read.

    Raises:
        ValueError: what is near the cursor is no text.
    """
    size = max(context * CHARS_PER_TOKEN, MOST_CHARS)
    prefix = hole.prefix[-size:].removeprefix(BYTE_ORDER_MARK)
    suffix = hole.suffix[:size]
    if "\0" in prefix or "\0" in suffix:
        raise ValueError(f"{hole.path or 'the file'} holds NUL characters: it is binary, not code")
    return replace(hole, prefix=prefix, suffix=suffix)
