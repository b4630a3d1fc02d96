"""`POST /infill`: what llama.vim and llama.vscode ask while somebody types."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from codegeex.hole import Hole, Reference
from codegeex.serve.answer import begin
from codegeex.serve.code import code_of
from codegeex.serve.fields import Lenient, language_key, options_of
from codegeex.serve.llama_cpp.reply import DEFAULT_TOKENS, LlamaRequest, reply

router = APIRouter()


class Extra(Lenient):
    """A part of another file."""

    text: str
    filename: str = ""


class InfillRequest(LlamaRequest):
    """A request for what goes between two texts."""

    input_prefix: str
    input_suffix: str
    input_extra: Annotated[list[Extra], Field(fail_fast=True)] = Field(
        default_factory=list, description="Parts of other files, the most useful last"
    )
    prompt: str = Field("", description="The line of the cursor, up to it")


@router.post("/infill", summary="Fill in between two texts (llama.cpp)")
async def infill(body: InfillRequest, request: Request) -> Response:
    code = code_of(request)
    model = code.any(body.model)
    options = options_of(
        body,
        body.n_predict,
        model,
        default_tokens=DEFAULT_TOKENS,
        client=code.client(request, "infill"),
        **body.own_options,
    )
    answering = await begin(request, model, hole_of(body), options)
    return await reply(body, request, answering, options)


def hole_of(body: InfillRequest) -> Hole:
    """Returns the hole of a request; it does not say which file it is in, the others may."""
    extra = [Reference(path=one.filename, text=one.text) for one in body.input_extra]
    languages = [language_key(None, one.path) for one in extra]
    known = {language for language in languages if language}
    return Hole(
        prefix=body.input_prefix + body.prompt,
        suffix=body.input_suffix,
        language=known.pop() if len(known) == 1 else "",
        references=tuple(extra),
    )
