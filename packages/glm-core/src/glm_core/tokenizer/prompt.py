"""Prompts with blanks: the one place where text may name special tokens."""

from __future__ import annotations

import re

from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import BLANK_TOKENS

_MARKER = re.compile("(" + "|".join(re.escape(name) for name in BLANK_TOKENS) + ")")


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a prompt whose literal [MASK], [sMASK] and [gMASK] are blanks.

    The pieces between the markers are encoded one by one. One space right before a marker is
    left out: in byte-level vocabularies a word carries the space before it, so in training the
    blank stands for " word" and the space belongs to the filling.
    """
    ids: list[int] = []
    pieces = _MARKER.split(text)
    for index, piece in enumerate(pieces):
        if piece in BLANK_TOKENS:
            ids.append(tokenizer.token_id(piece))
            continue
        before_marker = index + 1 < len(pieces)
        kept = piece.removesuffix(" ") if before_marker else piece
        ids.extend(tokenizer.encode(kept) if kept else [])
    return ids
