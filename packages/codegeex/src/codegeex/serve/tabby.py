"""Tabby: `POST /v1/completions` with `segments`, and what its agent asks for besides."""

from __future__ import annotations

import os
import platform
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from codegeex.hole import Hole, Reference
from codegeex.serve.answer import begin
from codegeex.serve.code import code_of
from codegeex.serve.fields import Lenient, Sampled, language_key, options_of
from glm_core import __version__
from glm_core.serve.errors import retry_after
from glm_core.serve.openai.chunks import usage_data
from glm_core.serve.openai.fields import BadField
from glm_core.serve.service import service_of
from glm_core.serve.sse import while_connected

router = APIRouter(tags=["Tabby"])


class Snippet(Lenient):
    """A part of another file."""

    filepath: str = ""
    body: str


_Snippets = Annotated[list[Snippet], Field(fail_fast=True)] | None


class Segments(Lenient):
    """The file around the cursor."""

    prefix: str
    suffix: str | None = None
    filepath: str | None = None
    git_url: str | None = Field(None, description="Without effect")
    declarations: _Snippets = None
    relevant_snippets_from_changed_files: _Snippets = None
    relevant_snippets_from_recently_opened_files: _Snippets = None
    clipboard: str | None = Field(None, description="Without effect")


class DebugOptions(Lenient):
    """For tests of a server."""

    raw_prompt: str | None = None


class TabbyRequest(Sampled):
    """A request for a completion."""

    language: str | None = None
    segments: Segments | None = None
    user: str | None = None
    mode: Literal["standard"] = Field(
        "standard", description="Suggestions of edits are none of this server's"
    )
    debug_options: DebugOptions | None = None


class TabbyEvent(Lenient):
    """What became of a completion."""

    type: Literal["view", "select", "dismiss"]
    completion_id: str
    choice_index: int = 0


async def complete(body: TabbyRequest, request: Request) -> Response:
    """Answers a request; it replaces what the same user asked for before."""
    code = code_of(request)
    client = code.client(request, "tabby", body.user)
    raw = body.debug_options.raw_prompt if body.debug_options else None
    model = code.default
    options = options_of(body, None, model, client=client)
    answering = await begin(request, model, _hole(body) if raw is None else raw, options)
    completed = await while_connected(request, answering.whole())
    reply = {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "choices": [{"index": i, "text": one.text} for i, one in enumerate(completed.choices)],
        "usage": usage_data([completed.usage]),
    }
    return JSONResponse(reply)


def _hole(body: TabbyRequest) -> Hole:
    segments = body.segments
    if segments is None:
        raise BadField("segments", "are missing: they hold the text around the cursor")
    # Each list has its best first, and declarations tell more than what was looked at.
    snippets = [
        *(segments.declarations or ()),
        *(segments.relevant_snippets_from_changed_files or ()),
        *(segments.relevant_snippets_from_recently_opened_files or ()),
    ]
    return Hole(
        prefix=segments.prefix,
        suffix=segments.suffix or "",
        path=segments.filepath or "",
        language=language_key(body.language, segments.filepath),
        references=tuple(Reference(path=one.filepath, text=one.body) for one in snippets[::-1]),
    )


@router.post("/v1/events", summary="What became of a completion (Tabby); nothing is kept")
async def events(body: TabbyEvent) -> Response:
    return Response(status_code=200)


@router.get("/v1beta/server_setting", summary="What Tabby's agent should do")
async def server_setting() -> JSONResponse:
    return JSONResponse({"disable_client_side_telemetry": True})


@router.api_route("/v1/health", methods=["GET", "POST"], include_in_schema=False)
async def tabby_health(request: Request) -> JSONResponse:
    """Tabby's keys, and the one that clients of llama.cpp look for."""
    code, service = code_of(request), service_of(request)
    device = code.default.completer.engine.model.device.type
    told: dict[str, Any] = {
        "status": "ok",
        "model": code.default.name,
        "chat_model": None,
        "device": device,
        "arch": platform.machine(),
        "cpu_info": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count() or 1,
        "cuda_devices": [],
        "version": {
            "build_date": "",
            "build_timestamp": "",
            "git_sha": "",
            "git_describe": f"v{__version__}",
        },
    }
    if service.is_draining or any(model.engine.has_failed for model in service.models):
        told["status"] = "draining" if service.is_draining else "failed"
        return JSONResponse(told, 503, retry_after(service.config.retry_after_s))
    return JSONResponse(told)
