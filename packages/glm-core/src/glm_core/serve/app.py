"""The web application: routers behind a few layers that look at every request.

A sibling adds its router: `create_app(models, config, routers=[mine])`. A router takes requests,
`service_of(request)` brings it to the engine, `EventStream` streams, exceptions become answers.
Its addresses come before those here: where both have one, the sibling's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware

from glm_core.serve import health, page
from glm_core.serve.access_log import AccessLog
from glm_core.serve.auth import HostCheck, KeyCheck
from glm_core.serve.config import ServeConfig
from glm_core.serve.description import describe
from glm_core.serve.errors import ErrorShape, ErrorShapes, add_error_handlers
from glm_core.serve.limits import BodyLimit, DrainCheck
from glm_core.serve.models import Models, ServedModel
from glm_core.serve.openai import chat, completions, embeddings, models
from glm_core.serve.service import Service
from glm_core.serve.workbench import Workbench, workbench_router


def create_app(
    served: Sequence[ServedModel],
    config: ServeConfig | None = None,
    routers: Sequence[APIRouter] = (),
    workbench: Workbench | None = None,
    error_shapes: Mapping[str, ErrorShape] | None = None,
    title: str = "glm serve",
) -> FastAPI:
    """Returns the application that serves models.

    Args:
        served: the models; whoever opened their engines closes them.
        config: limits and keys.
        routers: more addresses, or others' answers to those here.
        workbench: tools of the page; whoever opened it closes it.
        error_shapes: for paths of other protocols, as `ErrorShapes` takes them.
        title: of the description at /docs.

    Raises:
        ValueError: there is no model, or two have the same name.
    """
    config = config or ServeConfig()
    app = FastAPI(title=title, docs_url=None, redoc_url=None)
    app.state.service = service = Service(Models(served), config)
    add_error_handlers(app)
    own = (chat.router, completions.router, embeddings.router, models.router, health.router)
    ours = (page.router, workbench_router(workbench or Workbench()))
    for router in (*routers, *own, *ours):
        app.include_router(router)
    describe(app)
    _add_layers(app, service, error_shapes or {})
    return app


def _add_layers(app: FastAPI, service: Service, error_shapes: Mapping[str, ErrorShape]) -> None:
    """Puts the layers around the routers, the innermost first."""
    config = service.config
    app.add_middleware(BodyLimit, max_bytes=config.max_body_bytes, timeout_s=config.body_timeout_s)
    app.add_middleware(
        DrainCheck,
        is_draining=lambda: service.is_draining,
        retry_after_s=config.retry_after_s,
    )
    app.add_middleware(KeyCheck, keys=config.api_keys, public=config.public_paths)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    if config.is_local:
        app.add_middleware(HostCheck, names=config.allowed_hosts)
    app.add_middleware(ErrorShapes, shapes=error_shapes)
    app.add_middleware(AccessLog, metrics=service.metrics)
