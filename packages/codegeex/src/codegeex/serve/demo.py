"""`POST /`: CodeGeeX2's demo server, and endpoints of Hugging Face, which llm-ls asks there."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from codegeex.hole import Hole
from codegeex.serve import tgi
from codegeex.serve.answer import begin, best
from codegeex.serve.code import code_of
from codegeex.serve.fields import Count, Sampled, language_key, options_of, validated
from glm_core.serve.sse import while_connected

router = APIRouter(tags=["CodeGeeX2's demo"])
_DEFAULT_TOKENS = 128


class DemoRequest(Sampled):
    """A request for code that goes on."""

    prompt: str
    lang: str | None = None
    max_length: Count | None = Field(None, description="Tokens of the answer")


@router.post("/", summary="Go on with code (CodeGeeX2's demo), or with a text (Hugging Face)")
async def complete(body: dict[str, Any], request: Request) -> Response:
    if "inputs" in body:
        return await tgi.compat(validated(tgi.TgiRequest, body), request)
    return await _complete(validated(DemoRequest, body), request)


async def _complete(body: DemoRequest, request: Request) -> Response:
    model = code_of(request).default
    hole = Hole(prefix=body.prompt, language=language_key(body.lang))
    options = options_of(body, body.max_length, model, default_tokens=_DEFAULT_TOKENS)
    answering = await begin(request, model, hole, options)
    completed = await while_connected(request, answering.whole())
    now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    told = {"response": best(completed).text, "lang": body.lang, "status": 200, "time": now}
    return JSONResponse(told)
