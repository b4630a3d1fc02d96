"""`POST /v1/completions`, where three protocols meet, and FauxPilot's addresses.

Tabby's requests have `segments`, Twinny's Ollama's `options`; every other is OpenAI's. One with a
`suffix`, be it empty, is an editor's and completed as a hole, greedily where it names no
temperature; core answers the others, and those that ask for more than a completion
(log-probabilities, penalties, several answers).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from codegeex.complete import Options
from codegeex.hole import Hole
from codegeex.serve import tabby, twinny
from codegeex.serve.answer import Answering, begin, best
from codegeex.serve.code import CodeModel, code_of
from codegeex.serve.fields import Sampled, options_of, validated
from glm_core.serve.openai.chunks import Envelope, usage_data
from glm_core.serve.openai.completions import DEFAULT_MAX_TOKENS, check, completions
from glm_core.serve.openai.schema import CompletionRequest
from glm_core.serve.sse import DONE, EventStream, while_connected

router = APIRouter(tags=["OpenAI"])
_SAMPLING = {"temperature", "top_p", "top_k", "seed", "stop"}
_OF_HOLES = {"model", "user", "prompt", "suffix", "max_tokens", "stream", "stream_options"}
_WITHOUT_EFFECT = {"store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}
_NOTHING_MORE: dict[str, Any] = {
    "n": 1,
    "best_of": 1,
    "echo": False,
    "fill": False,
    "logit_bias": {},
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "min_p": 0,
    "min_tokens": 0,
    "stop_token_ids": [],
    "priority": 0,
    "newest_wins": False,
}
"""What the other fields say when they ask for nothing."""


@router.post("/v1/completions", include_in_schema=False)
async def code_completions(body: dict[str, Any], request: Request) -> Response:
    if "segments" in body or "debug_options" in body:
        return await tabby.complete(validated(tabby.TabbyRequest, body), request)
    if twinny.FIELDS & body.keys():
        return await twinny.complete(validated(twinny.TwinnyRequest, body), request)
    return await _openai(body, request)


@router.post("/v1/engines/{engine}/completions", summary="As /v1/completions (FauxPilot)")
async def engine_completions(engine: str, body: dict[str, Any], request: Request) -> Response:
    """Copilot's plugin calls engines that are not here, and sends fields that nobody knows."""
    known = {key: value for key, value in body.items() if key in CompletionRequest.model_fields}
    return await _openai(known | {"model": code_of(request).any(engine).name}, request)


@router.get("/copilot_internal/v2/token", summary="A token that Copilot's plugin asks for")
async def copilot_token() -> JSONResponse:
    # Nothing looks at it: who may come in is decided by keys, which this plugin cannot send.
    return JSONResponse({"token": "1", "expires_at": 2_600_000_000, "refresh_in": 900})


async def _openai(body: Mapping[str, Any], request: Request) -> Response:
    code = code_of(request)
    if body.get("model") in (None, ""):
        body = {**body, "model": code.default.name}
    asked = validated(CompletionRequest, body)
    model = code.models.get(asked.model)
    if model is None or not is_hole(asked):
        return await completions(asked, request)
    check(asked, model.served)
    hole = Hole(prefix=str(asked.prompt), suffix=asked.suffix or "")
    reply = _Reply(await begin(request, model, hole, _options(asked, model)), asked)
    if asked.stream:
        return await EventStream.begun(request, reply.stream())
    return JSONResponse(await while_connected(request, reply.whole()))


def is_hole(asked: CompletionRequest) -> bool:
    """Whether a request asks for one completion between two texts, and nothing more."""
    if asked.suffix is None or not isinstance(asked.prompt, str):
        return False
    given = asked.model_dump(exclude=_OF_HOLES | _SAMPLING | _WITHOUT_EFFECT, exclude_none=True)
    return all(value == _NOTHING_MORE.get(name) for name, value in given.items())


def _options(asked: CompletionRequest, model: CodeModel) -> Options:
    sampled = Sampled.model_validate(asked.model_dump(include=_SAMPLING))
    if asked.seed is not None:
        sampled.seed = asked.seed % 2**63  # there, one below 0 is a seed too
    return options_of(sampled, asked.max_tokens, model, default_tokens=DEFAULT_MAX_TOKENS)


class _Reply:
    """The answer in OpenAI's words."""

    def __init__(self, answering: Answering, asked: CompletionRequest) -> None:
        options = asked.stream_options
        self._answering = answering
        self._envelope = Envelope(
            "cmpl",
            "text_completion",
            "text_completion",
            answering.model.name,
            has_usage=options is not None and bool(options.include_usage),
        )

    async def whole(self) -> dict[str, Any]:
        completed = await self._answering.whole()
        first = best(completed)
        choice = self._choice(first.text, first.finish_reason)
        return self._envelope.whole([choice], usage_data([completed.usage]))

    async def stream(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._answering.pieces()) as pieces:
            async for piece in pieces:
                if piece.text:
                    yield self._envelope.chunk(self._choice(piece.text, None))
        completed = await self._answering.whole()
        last = self._choice("", best(completed).finish_reason)
        yield self._envelope.chunk(last)
        yield self._envelope.last(usage_data([completed.usage])) + DONE

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
