"""`/health`, `/props`, `/tokenize` and `/detokenize`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from codegeex.serve.code import code_of
from codegeex.serve.fields import Lenient
from glm_core import __version__
from glm_core.serve.errors import retry_after
from glm_core.serve.openai.fields import BadField
from glm_core.serve.service import prepared, service_of

router = APIRouter()


class TokenizeRequest(Lenient):
    """A text to be read into tokens; what looks like a special token in it is text."""

    content: str
    with_pieces: bool = False


class DetokenizeRequest(Lenient):
    """Tokens to be written out."""

    tokens: Annotated[list[int], Field(fail_fast=True)]


@router.get("/props", summary="About the model (llama.cpp)")
async def props(request: Request) -> JSONResponse:
    model = code_of(request).default
    completer, tokenizer = model.completer, model.completer.tokenizer
    return JSONResponse(
        {
            "default_generation_settings": {
                "id": 0,
                "n_ctx": completer.context,
                "speculative": False,
                "params": {"temperature": 0.0, "top_k": 0, "top_p": 1.0},
            },
            "total_slots": completer.engine.config.max_running,
            "model_alias": model.name,
            "model_path": model.name,
            "modalities": {"vision": False, "audio": False},
            "chat_template": "",
            "bos_token": "",
            "eos_token": tokenizer.decode([tokenizer.eos_id]),
            "build_info": f"codegeex {__version__}",
        }
    )


@router.post("/tokenize", summary="A text's tokens (llama.cpp)")
async def tokenize(body: TokenizeRequest, request: Request) -> JSONResponse:
    model = code_of(request).default
    model.served.check_length(len(body.content), "content")
    tokenizer, text = model.completer.tokenizer, body.content
    ids = await prepared(lambda: tokenizer.encode(text) if text else [])
    if not body.with_pieces:
        return JSONResponse({"tokens": ids})
    pieces: list[dict[str, Any]] = [
        {"id": token, "piece": tokenizer.decode([token])} for token in ids
    ]
    return JSONResponse({"tokens": pieces})


@router.post("/detokenize", summary="Tokens as text (llama.cpp)")
async def detokenize(body: DetokenizeRequest, request: Request) -> JSONResponse:
    tokenizer = code_of(request).default.completer.tokenizer
    outside = [token for token in body.tokens if not 0 <= token < tokenizer.vocab_size]
    if outside:
        raise BadField(
            "tokens",
            f"holds {outside[0]}: ids lie between 0 and {tokenizer.vocab_size - 1}",
        )
    return JSONResponse({"content": await prepared(lambda: tokenizer.decode(body.tokens))})


@router.get("/health", include_in_schema=False)
async def llama_health(request: Request) -> JSONResponse:
    """Whether requests are taken, in llama.cpp's words."""
    service = service_of(request)
    if service.is_draining or any(model.engine.has_failed for model in service.models):
        told = "shutting down" if service.is_draining else "a model has failed"
        status = "draining" if service.is_draining else "failed"
        error = {"code": 503, "message": told, "type": "unavailable_error"}
        headers = retry_after(service.config.retry_after_s)
        return JSONResponse({"status": status, "error": error}, 503, headers)
    return JSONResponse({"status": "ok"})
