"""Answers in llama.cpp's words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import AliasChoices, Field

from codegeex.complete import Completed, Options
from codegeex.serve.answer import Answering, best
from codegeex.serve.fields import Count, Sampled
from glm_core.infer.engine import Timings, Usage
from glm_core.serve.sse import EventStream, event, while_connected

DEFAULT_TOKENS = 128
_LENGTH = AliasChoices("n_predict", "num_predict", "max_tokens")
_STOP_TYPES = {"rule": "word"}


class LlamaRequest(Sampled):
    """What requests for text have in common; other settings of llama.cpp are without effect."""

    model: str | None = None
    n_predict: Count | None = Field(
        None,
        validation_alias=_LENGTH,
        description="Longest answer in tokens; 0 only reads the prompt; below 0: all there is",
    )
    n_indent: Count = Field(0, description="Least indent of the answer's further lines")
    t_max_predict_ms: float | None = Field(
        None, description="Milliseconds from the first token; counts once a line is complete"
    )
    stream: bool = False
    return_tokens: bool = False
    response_fields: Annotated[list[str], Field(max_length=256)] | None = Field(
        None, description="Only these; a path such as timings/prompt_ms is a key by that name"
    )

    @property
    def own_options(self) -> dict[str, Any]:
        """What the completer is told of these."""
        limit_ms = self.t_max_predict_ms or 0
        return {
            "min_indent": max(self.n_indent, 0),
            "time_limit_s": limit_ms / 1000 if limit_ms > 0 else None,
        }


async def reply(
    body: LlamaRequest, request: Request, answering: Answering, options: Options
) -> Response:
    """Sends the answer, whole or while it comes."""
    told = _Reply(body, answering, options)
    if body.stream:
        return await EventStream.begun(request, told.stream())
    return JSONResponse(await while_connected(request, told.whole()))


class _Reply:
    def __init__(self, body: LlamaRequest, answering: Answering, options: Options) -> None:
        self._body, self._answering, self._options = body, answering, options

    async def whole(self) -> dict[str, Any]:
        completed = await self._answering.whole()
        return self._picked(self._told(completed, best(completed).text))

    async def stream(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._answering.pieces()) as pieces:
            async for piece in pieces:
                if piece.text:
                    yield event({"index": 0, "content": piece.text, "tokens": [], "stop": False})
        completed = await self._answering.whole()
        yield event(self._picked(self._told(completed, "")))

    def _told(self, completed: Completed, text: str) -> dict[str, Any]:
        one, usage, options = best(completed), completed.usage, self._options
        return {
            "index": 0,
            "content": text,
            "tokens": list(one.tokens) if self._body.return_tokens else [],
            "id_slot": 0,
            "stop": True,
            "model": self._answering.model.name,
            "tokens_predicted": usage.completion,
            "tokens_evaluated": usage.prompt,
            "tokens_cached": usage.cached,
            "generation_settings": {
                "n_predict": options.max_new_tokens,
                "n_indent": options.min_indent,
                "temperature": options.temperature,
                "top_k": options.top_k,
                "top_p": options.top_p,
                "seed": options.seed,
                "stop": list(options.stop),
                "stream": self._body.stream,
            },
            "has_new_line": "\n" in one.text,
            "truncated": False,
            "stop_type": _STOP_TYPES.get(one.stop_type, one.stop_type),
            "stopping_word": one.stopping_word,
            "timings": timings_data(usage, completed.timings),
        }

    def _picked(self, told: dict[str, Any]) -> dict[str, Any]:
        fields = self._body.response_fields
        return picked(told, fields) if fields else told


def picked(told: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Returns some fields of an answer, each under its whole path; unknown ones are left out."""
    found: dict[str, Any] = {}
    for field in fields:
        value: Any = told
        for step in field.split("/"):
            if not isinstance(value, Mapping) or step not in value:
                break
            value = value[step]
        else:
            found[field] = value
    return found


def timings_data(usage: Usage, timings: Timings) -> dict[str, Any]:
    """Returns what a request took; tokens that had been read before are `cache_n`."""
    prompt_ms = 1000 * timings.prompt_s
    predicted_ms = 1000 * max(timings.total_s - timings.first_token_s, 0.0)
    num_read = usage.prompt - usage.cached
    return {
        "cache_n": usage.cached,
        **_speed("prompt", num_read, prompt_ms),
        **_speed("predicted", usage.completion, predicted_ms),
    }


def _speed(what: str, count: int, milliseconds: float) -> dict[str, Any]:
    return {
        f"{what}_n": count,
        f"{what}_ms": round(milliseconds, 3),
        f"{what}_per_token_ms": round(milliseconds / count, 3) if count else 0.0,
        f"{what}_per_second": round(1000 * count / milliseconds, 3) if milliseconds else 0.0,
    }
