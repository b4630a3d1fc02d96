"""`POST /v1/embeddings`."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from glm_core.infer.engine import RequestTimedOut
from glm_core.serve.access_log import notes_of
from glm_core.serve.errors import ApiError
from glm_core.serve.models import ServedModel
from glm_core.serve.openai.fields import BadField
from glm_core.serve.openai.prompts import listed, text_ids
from glm_core.serve.openai.replies import EMBEDDING_REPLIES
from glm_core.serve.openai.schema import EmbeddingRequest
from glm_core.serve.service import prepared, service_of
from glm_core.serve.sse import while_connected

router = APIRouter(tags=["OpenAI"])
MAX_INPUTS = 2048


@router.post("/v1/embeddings", responses=EMBEDDING_REPLIES, summary="Texts as vectors")
async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
    service = service_of(request)
    served = service.models.get(body.model)
    texts = await prepared(lambda: _texts(body, served))
    if service.config.log_prompts:
        notes_of(request)["input"] = body.input
    pending = service.embed(request, served, texts)
    timeout_s = service.config.request_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            vectors_ND = (await while_connected(request, pending.aoutcome())).numpy()
    except TimeoutError as error:
        raise RequestTimedOut(timeout_s) from error
    size = vectors_ND.shape[1]
    if body.dimensions not in (None, size):
        raise BadField(
            "dimensions", f"is {body.dimensions}: this model's vectors have {size}, leave it away"
        )
    num_tokens = sum(map(len, texts))
    notes_of(request)["prompt_tokens"] = num_tokens
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    told = {"object": "list", "model": served.name, "usage": usage}
    format = body.encoding_format
    return await prepared(lambda: JSONResponse(told | {"data": _data(vectors_ND, format)}))


def _texts(body: EmbeddingRequest, served: ServedModel) -> list[list[int]]:
    given = listed(body.input)
    if not given or len(given) > MAX_INPUTS:
        raise BadField("input", f"holds {len(given)} texts: it must be 1 to {MAX_INPUTS}")
    texts = []
    for index, one in enumerate(given):
        where = "input" if isinstance(body.input, str) else f"input[{index}]"
        if not one:
            raise BadField(where, "is empty: give it some text")
        served.check_length(len(one), where)
        try:
            ids = text_ids(one, served.tokenizer)
        except ValueError as error:
            raise BadField(where, str(error)) from error
        if isinstance(one, str):
            ids = served.layout.frame(ids, served.tokenizer)
        if len(ids) > served.context:
            raise ApiError(
                400,
                f"{where} has {len(ids)} tokens but the model's context holds {served.context}: "
                "cut the text into parts",
                "context_length_exceeded",
                param=where,
            )
        texts.append(ids)
    return texts


def _data(vectors_ND: Any, format: str | None) -> list[dict[str, Any]]:
    return [
        {"object": "embedding", "index": index, "embedding": _told(vector_D, format)}
        for index, vector_D in enumerate(vectors_ND)
    ]


def _told(vector: Any, format: str | None) -> list[float] | str:
    """Little-endian fp32 in base64, or the numbers."""
    if format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
