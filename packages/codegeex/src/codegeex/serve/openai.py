"""`POST /v1/completions`, where three protocols meet, and FauxPilot's addresses.

Tabby's requests have `segments`, Twinny's Ollama's `options`; every other is OpenAI's and answered
by core, with the model's own way to fill in between `prompt` and `suffix`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from codegeex.serve import tabby, twinny
from codegeex.serve.code import code_of
from codegeex.serve.fields import validated
from glm_core.serve.openai.completions import completions
from glm_core.serve.openai.schema import CompletionRequest

router = APIRouter(tags=["OpenAI"])


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
    if body.get("model") in (None, ""):
        body = {**body, "model": code_of(request).default.name}
    return await completions(validated(CompletionRequest, body), request)
