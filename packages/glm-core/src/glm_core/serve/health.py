"""`GET /health` and `GET /metrics`: for those who look after the server."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from glm_core.serve.errors import retry_after
from glm_core.serve.metrics import CONTENT_TYPE
from glm_core.serve.service import service_of

router = APIRouter(tags=["Server"])


@router.get("/health", summary="Whether the server takes requests")
async def health(request: Request) -> JSONResponse:
    service = service_of(request)
    if service.is_draining:
        headers = retry_after(service.config.retry_after_s)
        return JSONResponse({"status": "draining"}, 503, headers)
    if any(model.engine.has_failed for model in service.models):
        return JSONResponse({"status": "failed"}, 503)
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=Response, summary="Numbers for Prometheus")
async def metrics(request: Request) -> Response:
    return Response(service_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE})
