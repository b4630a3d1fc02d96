"""Refact: `POST /v1/code-completion`, whole files and where the cursor stands in one of them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from codegeex.hole import Hole, Mode, Reference
from codegeex.serve.answer import Answering, begin, best
from codegeex.serve.code import code_of
from codegeex.serve.fields import Count, Lenient, Sampled, language_key, options_of
from glm_core.serve.openai.fields import BadField
from glm_core.serve.sse import DONE, EventStream, event, while_connected

router = APIRouter(tags=["Refact"])
_DEFAULT_TOKENS = 50


class Cursor(Lenient):
    """A place in a file."""

    file: str
    line: Annotated[int, Field(ge=0, description="The first is 0")]
    character: Annotated[int, Field(ge=0, description="Characters of the line before it")]


class Inputs(Lenient):
    """What is known."""

    sources: dict[str, str]
    cursor: Cursor
    multiline: bool = False


class Parameters(Sampled):
    """How to answer."""

    max_new_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None


class RefactRequest(Lenient):
    """A request for a completion."""

    inputs: Inputs
    parameters: Parameters = Field(default_factory=lambda: Parameters.model_validate({}))
    model: str | None = None
    stream: bool = False


@router.post("/v1/code-completion", summary="Complete where the cursor stands (Refact)")
async def code_completion(body: RefactRequest, request: Request) -> Response:
    code = code_of(request)
    model, asked = code.any(body.model), body.parameters
    options = options_of(
        asked,
        asked.max_new_tokens or None,
        model,
        default_tokens=_DEFAULT_TOKENS,
        num_choices=1 if body.stream else asked.n or 1,
        client=code.client(request, "refact"),
    )
    reply = _Reply(await begin(request, model, hole_of(body.inputs), options))
    if body.stream:
        return await EventStream.begun(request, reply.stream())
    return JSONResponse(await while_connected(request, reply.whole()))


def hole_of(inputs: Inputs) -> Hole:
    """Returns the hole at the cursor; the other files may help.

    Raises:
        BadField: the cursor is nowhere.
    """
    cursor = inputs.cursor
    text = inputs.sources.get(cursor.file)
    if text is None:
        raise BadField(
            "inputs.cursor.file", f"is {cursor.file!r}: it must be one of inputs.sources"
        )
    before, line = _line(text, cursor.line)
    if cursor.character > len(line):
        raise BadField(
            "inputs.cursor.character",
            f"is {cursor.character}: line {cursor.line} has {len(line)} characters",
        )
    place = before + cursor.character
    others = [(path, other) for path, other in inputs.sources.items() if path != cursor.file]
    return Hole(
        prefix=text[:place],
        suffix=text[place:],
        path=cursor.file,
        language=language_key(None, cursor.file),
        mode=Mode.block if inputs.multiline else Mode.line,
        references=tuple(Reference(path=path, text=other) for path, other in others),
    )


def _line(text: str, number: int) -> tuple[int, str]:
    """Returns a line without its end, and how many characters come before it."""
    begin = 0
    for _ in range(number):
        begin = text.find("\n", begin) + 1
        if begin == 0:
            num_lines = text.count("\n") + 1
            raise BadField("inputs.cursor.line", f"is {number}: the file has {num_lines} lines")
    end = text.find("\n", begin)
    return begin, text[begin : len(text) if end < 0 else end].removesuffix("\r")


class _Reply:
    """The answer in Refact's words."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._head = {"model": answering.model.name, "created": time.time(), "cached": False}

    async def whole(self) -> dict[str, Any]:
        completed = await self._answering.whole()
        choices = [
            self._choice(index, one.text, one.finish_reason)
            for index, one in enumerate(completed.choices)
        ]
        return {"choices": choices} | self._head

    async def stream(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._answering.pieces()) as pieces:
            async for piece in pieces:
                if piece.text:
                    yield event({"choices": [self._choice(0, piece.text, None)]} | self._head)
        completed = await self._answering.whole()
        last = self._choice(0, "", best(completed).finish_reason)
        yield event({"choices": [last]} | self._head) + DONE

    def _choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": index, "code_completion": text, "finish_reason": reason}
