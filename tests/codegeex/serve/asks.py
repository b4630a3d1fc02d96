"""The same question in every protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

PREFIX = "def add(a, b):\n    return "
SUFFIX = "\n\nprint(add(1, 2))\n"
NAME = "tiny-code"

Body = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """One way to ask for what goes into a hole.

    Args:
        path: where.
        body: the request for at most so many tokens between two texts.
        text: the answer's, as its client reads it.
        has_stream: whether it can be streamed.
        delta: a stream's, of one event or line.
        file: that the hole is in.
    """

    path: str
    body: Callable[[str, str, int], Body]
    text: Callable[[Any], str]
    has_stream: bool = True
    delta: Callable[[Any], str] | None = None
    file: str = ""

    def ask(
        self, http: httpx2.Client, prefix: str, suffix: str, tokens: int, stream: bool = False
    ) -> str:
        """Returns the answer's text."""
        body = self.body(prefix, suffix, tokens)
        if self.has_stream:
            body["stream"] = stream
        reply = http.post(self.path, json=body)
        assert reply.status_code == 200, reply.text
        if not stream:
            return self.text(reply.json())
        delta = self.delta or self.text
        return "".join(delta(one) for one in stream_of(reply.text))


def stream_of(text: str) -> list[Any]:
    """Returns the data of a stream's events or lines."""
    lines = [one.removeprefix("data: ") for one in text.splitlines()]
    return [json.loads(one) for one in lines if one and one != "[DONE]"]


def _choice_text(reply: Any) -> str:
    return "".join(choice["text"] for choice in reply["choices"])


def _refact(prefix: str, suffix: str, tokens: int) -> Body:
    line, character = prefix.count("\n"), len(prefix.rpartition("\n")[2])
    cursor = {"file": "a", "line": line, "character": character}
    inputs = {"sources": {"a": prefix + suffix}, "cursor": cursor, "multiline": True}
    return {"inputs": inputs, "parameters": {"max_new_tokens": tokens, "temperature": 0}}


HOLES = {
    "openai": Protocol(
        "/v1/completions",
        lambda p, s, n: {
            "model": NAME,
            "prompt": p,
            "suffix": s,
            "max_tokens": n,
            "temperature": 0,
        },
        _choice_text,
    ),
    "fauxpilot": Protocol(
        "/v1/engines/codegen/completions",
        lambda p, s, n: {"prompt": p, "suffix": s, "max_tokens": n, "temperature": 0},
        _choice_text,
    ),
    "twinny": Protocol(
        "/v1/completions",
        lambda p, s, n: {"prompt": p, "suffix": s, "options": {"num_predict": n}},
        _choice_text,
    ),
    "infill": Protocol(
        "/infill",
        lambda p, s, n: {"input_prefix": p, "input_suffix": s, "n_predict": n},
        lambda reply: reply["content"],
    ),
    "ollama": Protocol(
        "/api/generate",
        lambda p, s, n: {
            "model": NAME,
            "prompt": p,
            "suffix": s,
            "options": {"num_predict": n, "temperature": 0},
        },
        lambda reply: reply["response"],
    ),
    "mistral": Protocol(
        "/v1/fim/completions",
        lambda p, s, n: {"prompt": p, "suffix": s, "max_tokens": n, "temperature": 0},
        lambda reply: reply["choices"][0]["message"]["content"],
        delta=lambda one: "".join(choice["delta"]["content"] for choice in one["choices"]),
    ),
    "refact": Protocol(
        "/v1/code-completion",
        _refact,
        lambda reply: reply["choices"][0]["code_completion"],
        file="a",
    ),
}
"""Protocols whose requests say how long the answer may be."""

OTHERS = {
    "tabby": Protocol(
        "/v1/completions",
        lambda p, s, n: {"segments": {"prefix": p, "suffix": s}},
        _choice_text,
        has_stream=False,
    ),
    "plugin": Protocol(
        "/multilingual_code_generate",
        lambda p, s, n: {"prompt": p, "temperature": 0},
        lambda reply: reply["result"]["output"]["code"][0],
        has_stream=False,
    ),
    "demo": Protocol(
        "/",
        lambda p, s, n: {"prompt": p, "max_length": n},
        lambda reply: reply["response"],
        has_stream=False,
    ),
}
"""Protocols that have no length, or no suffix."""

RAW = {
    "openai": Protocol(
        "/v1/completions",
        lambda p, s, n: {"prompt": p + s, "max_tokens": n, "temperature": 0},
        _choice_text,
    ),
    "twinny": Protocol(
        "/v1/completions", lambda p, s, n: {"prompt": p + s, "n_predict": n}, _choice_text
    ),
    "completion": Protocol(
        "/completion",
        lambda p, s, n: {"prompt": p + s, "n_predict": n},
        lambda reply: reply["content"],
    ),
    "ollama": Protocol(
        "/api/generate",
        lambda p, s, n: {
            "model": NAME,
            "prompt": p + s,
            "raw": True,
            "options": {"num_predict": n},
        },
        lambda reply: reply["response"],
    ),
    "tgi": Protocol(
        "/generate",
        lambda p, s, n: {"inputs": p + s, "parameters": {"max_new_tokens": n}},
        lambda reply: reply["generated_text"],
        has_stream=False,
    ),
    "tgi-stream": Protocol(
        "/generate_stream",
        lambda p, s, n: {"inputs": p + s, "parameters": {"max_new_tokens": n}},
        lambda reply: reply["generated_text"],
        delta=lambda one: one["token"]["text"],
    ),
}
"""Protocols whose prompt is a text that the client wrote alone."""


def ways(protocols: dict[str, Protocol]) -> list[tuple[str, bool]]:
    """Returns each protocol's name, with and without a stream where it has both."""
    streams = [(name, True) for name, one in protocols.items() if one.has_stream]
    return streams + [(name, False) for name in protocols if not name.endswith("tgi-stream")]


ALL = {f"hole-{name}": one for name, one in (HOLES | OTHERS).items()}
ALL |= {f"raw-{name}": one for name, one in RAW.items()}
