"""Tokens and their log-probabilities as OpenAI's answers tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glm_core.infer.logprobs import TokenLogprob
from glm_core.tokenizer.incremental import IncrementalDecoder
from glm_core.tokenizer.protocol import Tokenizer

LEAST = -9999.0
"""OpenAI's number for "very unlikely": JSON has no minus infinity."""


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Returns a token's text; of part of a character its bytes, as `bytes:\\xe4`."""
    if token in tokenizer.special_ids:
        return tokenizer.token_name(token)
    data = tokenizer.decode_bytes([token])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Returns `logprobs.content` of a chat's choice."""

    def told(token: int, logprob: float) -> dict[str, Any]:
        data = None if token in tokenizer.special_ids else list(tokenizer.decode_bytes([token]))
        text = token_text(tokenizer, token)
        return {"token": text, "logprob": max(logprob, LEAST), "bytes": data}

    return [
        told(one.token, one.logprob) | {"top_logprobs": [told(*other) for other in one.top]}
        for one in tokens
    ]


class CompletionLogprobs:
    """Makes `logprobs` of a completion's choice, part by part.

    Args:
        tokenizer: knows the tokens.
        count: alternatives asked for; with 0 there is no `top_logprobs`.
    """

    def __init__(self, tokenizer: Tokenizer, count: int) -> None:
        self._tokenizer = tokenizer
        self._count = count
        self._decoder = IncrementalDecoder(tokenizer, continues=True)
        self._offset = 0

    def push(self, tokens: Sequence[TokenLogprob | int]) -> dict[str, Any]:
        """Returns what is told of the next tokens; of a bare id there is no log-probability."""
        texts: list[str] = []
        logprobs: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets: list[int] = []
        for one in tokens:
            token = one if isinstance(one, int) else one.token
            texts.append(token_text(self._tokenizer, token))
            logprobs.append(None if isinstance(one, int) else max(one.logprob, LEAST))
            tops.append(None if isinstance(one, int) else self._top(one))
            offsets.append(self._offset)
            self._offset += len(self._decoder.push(token))
        return {
            "tokens": texts,
            "token_logprobs": logprobs,
            "top_logprobs": tops if self._count else None,
            "text_offset": offsets,
        }

    def _top(self, one: TokenLogprob) -> dict[str, float]:
        """The alternatives, and the token itself where it is none of them."""
        found: dict[str, float] = {}
        for token, logprob in (*one.top, (one.token, one.logprob)):
            found.setdefault(token_text(self._tokenizer, token), max(logprob, LEAST))
        return found
