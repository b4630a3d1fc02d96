"""What editors' plugins ask after a keystroke."""

from __future__ import annotations

import json
from typing import Any

from codegeex.bench.edits import Edit

LINES_BEFORE, LINES_BEHIND = 256, 64
"""Of the file around the cursor's line, as llama.vim sends them."""
_TIMINGS = ("cache_n", "prompt_n", "prompt_ms", "predicted_n", "predicted_ms")


def infill(edit: Edit, new_tokens: int, stream: bool = False) -> bytes:
    """llama.vim's request for one line: `POST /infill`.

    Two things are not its own: the answer is one line, and the most probable one, so that every
    server has the same to do.
    """
    *before, line = edit.before.split("\n")
    return _json(
        {
            "id_slot": 0,
            "input_prefix": "".join(f"{one}\n" for one in before[-LINES_BEFORE:]),
            "input_suffix": _lines(edit.after, LINES_BEHIND),
            "input_extra": [],
            "prompt": line,
            "n_predict": new_tokens,
            "n_indent": len(line) - len(line.lstrip()),
            "stop": ["\n"],
            "top_k": 1,
            "top_p": 0.99,
            "samplers": ["top_k", "top_p", "infill"],
            "cache_prompt": True,
            "stream": stream,
            "t_max_prompt_ms": 500,
            "t_max_predict_ms": 1000,
            "response_fields": [
                "content",
                "stop_type",
                "tokens_predicted",
                *(f"timings/{name}" for name in _TIMINGS),
                "truncated",
            ],
        }
    )


def segments(edit: Edit) -> bytes:
    """Tabby's request: `POST /v1/completions` with the file cut in two; the server chooses how
    many lines and tokens the answer has."""
    before = edit.before.split("\n")[-LINES_BEFORE - 1 :]
    return _json(
        {
            "language": "python",
            "segments": {
                "prefix": "\n".join(before),
                "suffix": _lines(edit.after, LINES_BEHIND),
                "filepath": "module.py",
            },
            "temperature": 0,
            "user": "bench",
        }
    )


def _lines(text: str, count: int) -> str:
    """Returns the rest of a line and so many lines behind it."""
    return "\n".join(text.split("\n")[: count + 1])


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()
