"""`POST /completion`: what goes on behind a prompt, special tokens and all."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from codegeex.serve.answer import begin
from codegeex.serve.code import code_of
from codegeex.serve.fields import options_of
from codegeex.serve.llama_cpp.reply import DEFAULT_TOKENS, LlamaRequest, reply

router = APIRouter()


class CompletionRequest(LlamaRequest):
    """A request for a text that goes on."""

    prompt: str


@router.post("/completions", include_in_schema=False)
@router.post("/completion", summary="Go on with a text (llama.cpp)")
async def completion(body: CompletionRequest, request: Request) -> Response:
    model = code_of(request).any(body.model)
    options = options_of(
        body, body.n_predict, model, default_tokens=DEFAULT_TOKENS, **body.own_options
    )
    answering = await begin(request, model, body.prompt, options)
    return await reply(body, request, answering, options)
