"""The first plugin of CodeGeeX for VS Code: `/multilingual_code_generate` and two like it.

It sends the code before the cursor, at most its last 1200 characters, and wants several answers.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from codegeex.hole import Hole, Mode
from codegeex.serve.answer import begin
from codegeex.serve.code import code_of
from codegeex.serve.fields import Sampled, language_key, options_of
from glm_core.serve.sse import while_connected

router = APIRouter(tags=["CodeGeeX's first plugin"])
_DEFAULT_TOKENS = 64
_BLOCK_TOKENS = 128


class PluginRequest(Sampled):
    """A request for code that goes on."""

    prompt: str
    lang: str | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = Field(None, description="Answers wanted")
    apikey: str | None = Field(None, description="Tells clients apart; it lets nobody in")
    apisecret: str | None = Field(None, description="Without effect")


@router.post("/multilingual_code_generate", summary="Go on with code")
async def generate(body: PluginRequest, request: Request) -> Response:
    return await _complete(body, request, Mode.block, _DEFAULT_TOKENS)


@router.post("/multilingual_code_generate_block", summary="Go on to the end of a block")
async def generate_block(body: PluginRequest, request: Request) -> Response:
    return await _complete(body, request, Mode.block, _BLOCK_TOKENS)


@router.post("/multilingual_code_generate_adapt", summary="Go on with code, as far as it fits")
async def generate_adapt(body: PluginRequest, request: Request) -> Response:
    return await _complete(body, request, Mode.block, _DEFAULT_TOKENS)


async def _complete(body: PluginRequest, request: Request, mode: Mode, max_tokens: int) -> Response:
    start = time.monotonic()
    code = code_of(request)
    model = code.default
    hole = Hole(prefix=body.prompt, language=language_key(body.lang), mode=mode)
    client = code.client(request, "plugin", body.apikey)
    options = options_of(body, max_tokens, model, num_choices=body.n or 1, client=client)
    answering = await begin(request, model, hole, options)
    completed = await while_connected(request, answering.whole())
    output: dict[str, Any] = {
        "code": [choice.text for choice in completed.choices],
        "input_lang": body.lang,
    }
    seconds = round(time.monotonic() - start, 4)
    result = {"output": output, "process_time": seconds}
    return JSONResponse({"status": 0, "message": "success", "result": result})
