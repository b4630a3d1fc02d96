"""`GET /v1/models`, and one of them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from glm_core.serve.models import ServedModel
from glm_core.serve.openai.replies import MODEL_REPLIES, MODELS_REPLIES
from glm_core.serve.service import service_of

router = APIRouter(tags=["OpenAI"])


@router.get("/v1/models", responses=MODELS_REPLIES, summary="What is served")
async def models(request: Request) -> JSONResponse:
    data = [_told(model) for model in service_of(request).models]
    return JSONResponse({"object": "list", "data": data})


@router.get("/v1/models/{name:path}", responses=MODEL_REPLIES, summary="One model")
async def model(name: str, request: Request) -> JSONResponse:
    return JSONResponse(_told(service_of(request).models.get(name)))


def _told(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "glm-lab",
        "context_length": model.context,
        "chat_format": model.chat_format.name,
        "abilities": model.abilities,
    }
