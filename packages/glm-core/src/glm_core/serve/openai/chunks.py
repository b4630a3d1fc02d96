"""What all answers of OpenAI's API have around them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from glm_core.infer.answer import FinishReason
from glm_core.infer.engine import Usage
from glm_core.serve.sse import one_line

_ENDED = (FinishReason.stop_token, FinishReason.stop_string)


class Envelope:
    """Wraps the choices of one answer. A stream's chunks repeat it: it is written once.

    Args:
        prefix: of the id, as in `chatcmpl`.
        kind: `object` of the answer.
        chunk_kind: `object` of a chunk.
        model: as the request named it.
        has_usage: whether a last chunk will tell the usage.
    """

    def __init__(
        self, prefix: str, kind: str, chunk_kind: str, model: str, has_usage: bool = False
    ) -> None:
        self.id = f"{prefix}-{secrets.token_hex(12)}"
        created = int(time.time())
        self._head = {"id": self.id, "object": kind, "created": created, "model": model}
        chunk = one_line(self._head | {"object": chunk_kind})
        self._before = b'data: %b,"choices":[' % chunk.removesuffix(b"}")
        self._behind = b'],"usage":null}\n\n' if has_usage else b"]}\n\n"
        self._has_usage = has_usage

    def whole(self, choices: Sequence[Any], usage: dict[str, Any]) -> dict[str, Any]:
        """Returns a whole answer."""
        return self._head | {"choices": list(choices), "usage": usage}

    def chunk(self, choice: dict[str, Any]) -> bytes:
        """Returns the event of a part of one choice."""
        return self._before + one_line(choice) + self._behind

    def last(self, usage: dict[str, Any]) -> bytes:
        """Returns the event of the usage, empty where nobody asked for it."""
        if not self._has_usage:
            return b""
        return b'%b],"usage":%b}\n\n' % (self._before, one_line(usage))


def usage_data(usages: Sequence[Usage]) -> dict[str, Any]:
    """Returns OpenAI's `usage` of one or more requests."""
    prompt = sum(usage.prompt for usage in usages)
    completion = sum(usage.completion for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached for usage in usages)},
    }


def is_cut(reason: FinishReason) -> bool:
    """Whether an answer ended for want of room."""
    return reason not in _ENDED


def finish_reason(reason: FinishReason) -> str:
    """Returns OpenAI's name for it."""
    return "length" if is_cut(reason) else "stop"
