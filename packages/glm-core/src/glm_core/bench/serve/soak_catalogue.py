"""What the soak asks: requests of every kind whose answer is always the same, and wrong ones."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MODEL = "nano-text"
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_TEXTS = (
    "A list is a sequence that can be changed.",
    "The with statement wraps a block of code",
    "An exception is raised when a key is not found in a dictionary.",
    "def area(width, height):\n    return",
    "列表是可变的序列。",
    "Strings are immutable; to change one, make a new one. " * 6,
    "The function open returns a file object, which has methods such as read and write.",
    "1 2 3 5 8 13",
)
_BLANKS = (
    "The [MASK] statement leaves a loop.",
    "A [MASK] maps keys to [MASK].",
    "Functions are defined with [MASK] and return [MASK] unless told otherwise. [gMASK]",
)
_SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["list", "dict"]}, "size": {"type": "integer", "maximum": 99}},
    "required": ["kind", "size"],
    "additionalProperties": False,
}
_JSON = {
    "type": "json_schema",
    "json_schema": {"name": "kind", "schema": _SCHEMA, "strict": True},
}
_PENALTIES: dict[str, Any] = {
    "presence_penalty": 1.0,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.2,
}


@dataclass(frozen=True)
class Ask:
    """A request whose answer is known beforehand."""

    kind: str
    path: str
    body: dict[str, Any]
    can_stream: bool = True

    @property
    def content(self) -> bytes:
        return json.dumps(self.body).encode()


@dataclass(frozen=True)
class Wrong:
    """A request that must be refused."""

    kind: str
    content: bytes
    status: int
    path: str = COMPLETIONS
    method: str = "POST"
    told_length: int = 0
    """Bytes that the request says it has; 0: as many as it has."""


def catalogue(count: int, seed: int) -> list[Ask]:
    """Returns `count` requests, of every kind about as many."""
    numbers = random.Random(seed)
    kinds = itertools.cycle(
        [_greedy, _seeded, _chat, _seeded_chat, _blanks, _several, _stopped, _grammar, _scored]
        + [_infill, _penalized, _best, _echo, _batch, _embeddings, _schema_chat]
    )
    return [next(kinds)(numbers) for _ in range(count)]


def wrong_requests() -> list[Wrong]:
    """Returns requests with one thing wrong in each."""
    return [Wrong(*one) for one in _wrong_contents()] + [
        Wrong("unknown address", b"{}", 404, "/v1/nothing"),
        Wrong("wrong method", b"", 405, COMPLETIONS, "PUT"),
        Wrong("body of 100 MB", b"{", 413, told_length=100 * 2**20),
        Wrong("chat without user", _with(CHAT, messages=[{"role": "assistant"}]), 400, CHAT),
        Wrong("no messages", _with(CHAT, messages=[]), 400, CHAT),
        Wrong("tools it has not", _with(CHAT, tools=[{"type": "function"}]), 400, CHAT),
        Wrong("nothing to embed", _dump(model=MODEL, input=[]), 400, EMBEDDINGS),
    ]


def _wrong_contents() -> Iterator[tuple[str, bytes, int]]:
    yield "malformed JSON", b'{"model": "nano-text", "prompt": ', 400
    yield "no object", b"[1, 2]", 400
    yield "invalid UTF-8", b'{"model": "nano-text", "prompt": "\xff\xfe"}', 400
    yield "empty body", b"", 400
    yield "unknown model", _dump(model="nano-txet", prompt="a"), 404
    yield "prompt too long", _with(prompt="word " * 5000), 400
    yield "prompt of a wrong type", _with(prompt={"text": "a"}), 400
    yield "text for a number", _with(max_tokens="8"), 400
    yield "zero max_tokens", _with(max_tokens=0), 400
    yield "negative temperature", _with(temperature=-1), 400
    yield "unknown field", _with(max_tokenz=8), 400
    yield "best_of below n", _with(n=3, best_of=2), 400
    yield "token outside", _with(prompt=[2**30]), 400
    yield "grammar that is none", _with(response_format={"type": "json_schema"}), 400
    yield "nested too deeply", b"[" * 100_000, 400


def _with(path: str = COMPLETIONS, **fields: Any) -> bytes:
    asked = {"messages": [{"role": "user", "content": "a"}]} if path == CHAT else {"prompt": "a"}
    return _dump(**{"model": MODEL, **asked, **fields})


def _dump(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def _text(numbers: random.Random) -> str:
    """A text; many begin alike, so that what is remembered of one serves another."""
    start = numbers.choice(_TEXTS)
    return f"{start} {numbers.choice(_TEXTS)}" if numbers.random() < 0.5 else start


def _completion(kind: str, numbers: random.Random, can_stream: bool = True, **fields: Any) -> Ask:
    body = {
        "model": MODEL,
        "prompt": _text(numbers),
        "max_tokens": numbers.randint(1, 16),
        "temperature": 0,
    }
    return Ask(kind, COMPLETIONS, body | fields, can_stream)


def _sampled(numbers: random.Random) -> dict[str, Any]:
    return {"temperature": 1.0, "top_p": 0.95, "seed": numbers.randrange(1000)}


def _greedy(numbers: random.Random) -> Ask:
    return _completion("completion", numbers)


def _seeded(numbers: random.Random) -> Ask:
    return _completion("seeded completion", numbers, **_sampled(numbers))


def _penalized(numbers: random.Random) -> Ask:
    return _completion("penalties", numbers, **_PENALTIES)


def _chat_body(numbers: random.Random) -> dict[str, Any]:
    messages = [{"role": "user", "content": _text(numbers)}]
    if numbers.random() < 0.5:
        said = {"role": "assistant", "content": "Yes."}
        messages = [*messages, said, {"role": "user", "content": _text(numbers)}]
    return {"model": MODEL, "messages": messages, "max_tokens": numbers.randint(1, 16)}


def _chat(numbers: random.Random) -> Ask:
    return Ask("chat", CHAT, _chat_body(numbers) | {"temperature": 0})


def _seeded_chat(numbers: random.Random) -> Ask:
    return Ask("seeded chat", CHAT, _chat_body(numbers) | _sampled(numbers))


def _schema_chat(numbers: random.Random) -> Ask:
    fields = {"temperature": 0, "response_format": _JSON, "max_tokens": 24}
    return Ask("chat by a schema", CHAT, _chat_body(numbers) | fields)


def _blanks(numbers: random.Random) -> Ask:
    text = numbers.choice(_BLANKS)
    return _completion("blanks", numbers, prompt=text, fill=True, max_tokens=6)


def _several(numbers: random.Random) -> Ask:
    fields = _sampled(numbers) | {"n": numbers.randint(2, 4)}
    return _completion("n > 1", numbers, **fields)


def _best(numbers: random.Random) -> Ask:
    fields = _sampled(numbers) | {"n": 1, "best_of": 3}
    return _completion("best_of", numbers, can_stream=False, **fields)


def _stopped(numbers: random.Random) -> Ask:
    stop = numbers.sample(["e", " the", ".", "an"], 2)
    return _completion("stop strings", numbers, stop=stop, max_tokens=24)


def _grammar(numbers: random.Random) -> Ask:
    return _completion("grammar", numbers, response_format=_JSON, max_tokens=24)


def _scored(numbers: random.Random) -> Ask:
    return _completion("logprobs", numbers, logprobs=2)


def _infill(numbers: random.Random) -> Ask:
    return _completion("suffix", numbers, suffix=numbers.choice(_TEXTS))


def _echo(numbers: random.Random) -> Ask:
    return _completion("echo", numbers, echo=True)


def _batch(numbers: random.Random) -> Ask:
    return _completion("several prompts", numbers, prompt=[_text(numbers) for _ in range(3)])


def _embeddings(numbers: random.Random) -> Ask:
    body = {"model": MODEL, "input": [_text(numbers) for _ in range(numbers.randint(1, 3))]}
    return Ask("embeddings", EMBEDDINGS, body, can_stream=False)
