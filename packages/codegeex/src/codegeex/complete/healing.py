"""Token healing: the last tokens of a prompt are taken back where they may be half a token.

A text that ends with `retu` ends with tokens that a model has hardly ever seen at that place: the
word is one token when it is whole. So the prompt ends before it, and the answer must begin with
it; what is shown of the answer is what comes after.
"""

from __future__ import annotations

from glm_core.infer.beginning import token_bytes
from glm_core.tokenizer.protocol import Tokenizer

_WINDOW = 256
"""Characters at the end of a text that are looked at."""
MOST_TOKENS = 4
"""Taken back."""


def half_token(prefix: str, tokenizer: Tokenizer) -> str:
    """Returns the end of a text that a longer token begins with; empty where none does.

    It consists of whole tokens of the text, as many as possible, and of whole characters.
    """
    tail = prefix[-_WINDOW:]
    if not tail:
        return ""
    tokens = token_bytes(tokenizer)
    ids = tokenizer.encode(tail)[-MOST_TOKENS:]
    for begin in range(len(ids)):
        data = tokenizer.decode_bytes(ids[begin:])
        if not tokens.has_longer(data):
            continue
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text and prefix.endswith(text):
            return text
    return ""
