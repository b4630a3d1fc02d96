"""Errors as OpenAI's API tells of them, and the one place where exceptions become answers."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm_core.infer.engine import (
    EngineBusy,
    EngineDraining,
    EngineFailed,
    RequestCancelled,
    RequestFailed,
    RequestTimedOut,
)
from glm_core.infer.sampling import DamagedLogits
from glm_core.serve.openai.fields import BadField

logger = logging.getLogger(__name__)
_SHAPE = "glm_error_shape"

INVALID, SERVER, LIMIT = "invalid_request_error", "server_error", "rate_limit_error"
_SAMPLING = re.compile(r"^sampling\.(\w+)")
"""How the settings of an answer are called where it is decoded."""
_UNION_TAGS = ("str", "int", "float", "bool", "dict", "list", "constrained", "function", "literal")


_HTTP = {
    (400, "There was an error parsing the body"): (
        "the body is no JSON in UTF-8, or is nested too deeply",
        "invalid_json",
    ),
    (404, "Not Found"): ("there is no such address: see /docs", "unknown_url"),
    (405, "Method Not Allowed"): (
        "this address does not know the method: see /docs",
        "method_not_allowed",
    ),
}
"""What FastAPI says, in our words and with a code."""


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: names what is wrong and what would be right.
        code: for programs.
        param: the field it is about.
        kind: OpenAI's `type`.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        kind: str = INVALID,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Returns the answer's JSON."""
        told = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": told}

    def told(self, scope: Scope) -> tuple[int, Any]:
        """Returns status and JSON in the shape of the protocol that the request came by."""
        shape: ErrorShape | None = scope.get("state", {}).get(_SHAPE)
        return (self.status, self.body()) if shape is None else shape(self)

    def response(self, scope: Scope) -> Response:
        """Returns the answer; escapes everything, for a message may quote half a character."""
        status, body = self.told(scope)
        return Response(json.dumps(body).encode(), status, self.headers, "application/json")


ErrorShape = Callable[[ApiError], tuple[int, Any]]
"""Gives the status and the JSON by which another protocol tells of an error."""


class ClientLeft(Exception):
    """The connection was dropped: nobody waits for the answer."""


class ErrorShapes:
    """Lets requests by other protocols than OpenAI's be refused in those protocols' words.

    Args:
        app: the rest of the server, all that may refuse.
        shapes: by path; one that ends with / (the root alone does not count) stands for all below
            it.
    """

    def __init__(self, app: ASGIApp, shapes: Mapping[str, ErrorShape]) -> None:
        self._app = app
        self._shapes = shapes
        self._folders = [path for path in shapes if path.endswith("/") and path != "/"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})[_SHAPE] = self._shape(scope["path"])
        await self._app(scope, receive, send)

    def _shape(self, path: str) -> ErrorShape | None:
        folder = next((one for one in self._folders if path.startswith(one)), path)
        return self._shapes.get(path, self._shapes.get(folder))


class UnexpectedErrors:
    """Answers what nobody expected; the innermost layer, so that the others see the answer.

    Args:
        app: the routers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if has_begun:
                raise
            await api_error(error).response(scope)(scope, receive, send)


def retry_after(seconds: float) -> dict[str, str]:
    """Returns the header that says when to ask again, in whole seconds."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def draining(seconds: float) -> ApiError:
    """Returns the error of a server that is about to stop."""
    message = "the server is shutting down: ask again later, or ask another one"
    return ApiError(503, message, "draining", kind=SERVER, headers=retry_after(seconds))


def api_error(error: BaseException) -> ApiError:
    """Returns what a client is told of an exception; nothing of one that is our own defect."""
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _invalid(error.errors())
        case BadField():
            return ApiError(400, str(error), "invalid_value", param=error.param)
        case EngineBusy():
            return ApiError(
                429,
                "too many requests are waiting: ask again later",
                "engine_busy",
                kind=LIMIT,
                headers=retry_after(error.retry_after_s),
            )
        case EngineDraining():
            return draining(error.retry_after_s)
        case RequestTimedOut():
            return ApiError(
                504,
                "the request took longer than this server allows: ask for fewer tokens",
                "request_timed_out",
                kind=SERVER,
                headers={"x-should-retry": "false"},
            )
        case RequestCancelled():
            return ApiError(
                409,
                "the request was cancelled: a newer one of the same user took its place, or the "
                "server is shutting down",
                "request_cancelled",
                headers={"x-should-retry": "false"},
            )
        case RequestFailed():
            return _failed(error)
        case EngineFailed():
            told = "the engine has stopped: the server must be started again"
            return ApiError(500, told, "engine_failed", kind=SERVER)
        case ClientLeft():
            return ApiError(499, "the client has left", "client_left")
        case HTTPException():
            return _http(error)
        case ValueError():
            named = _SAMPLING.match(str(error))
            param = named[1] if named else None
            return ApiError(400, _SAMPLING.sub(r"\1", str(error)), "invalid_value", param=param)
    logger.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed: its log tells why", "internal_error", kind=SERVER)


def add_error_handlers(app: FastAPI) -> None:
    """Makes every exception of the app an answer in OpenAI's shape; to be called before other
    layers are added."""

    async def handle(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError) and not _is_json(request):
            error = ApiError(415, "the body must be announced as application/json", "not_json")
        return api_error(error).response(request.scope)

    for kind in (ApiError, RequestValidationError, HTTPException):  # the others come through
        app.add_exception_handler(kind, handle)
    app.add_middleware(UnexpectedErrors)


def _failed(error: RequestFailed) -> ApiError:
    cause = error.cause
    if isinstance(cause, ValueError) and not isinstance(cause, DamagedLogits):
        return ApiError(400, str(cause), "cannot_answer")  # what was asked for excludes everything
    logger.error("the model could not answer a request", exc_info=cause)
    if isinstance(cause, DamagedLogits):
        return ApiError(500, str(cause), "model_failed", kind=SERVER)
    told = "the model failed: the server's log tells why"
    return ApiError(500, told, "model_failed", kind=SERVER)


def _http(error: HTTPException) -> ApiError:
    status, told = error.status_code, str(error.detail)
    known = _HTTP.get((status, told))
    if known is None:
        return ApiError(status, told, headers=error.headers)
    message, code = known
    return ApiError(status, message, code, headers=error.headers)


def _invalid(errors: Any) -> ApiError:
    """Tells of the first thing that is wrong; where several types may stand, of the nearest."""
    field = errors[0]["loc"][:2]
    nearest = [one for one in errors if not one["type"].endswith("_type")]
    first = next((one for one in nearest if one["loc"][:2] == field), errors[0])
    kind, place = first["type"], list(first["loc"])
    if kind == "json_invalid":
        reason = first["ctx"]["error"]
        return ApiError(400, f"the body is no JSON: {reason} at {place[-1]}", "invalid_json")
    if place == ["body"]:
        return ApiError(400, "the body must be a JSON object", "invalid_json")
    param = _param(place)
    if kind == "missing":
        return ApiError(400, f"you must provide {param}", "missing_required_parameter", param=param)
    if kind == "extra_forbidden":
        return ApiError(400, f"unknown parameter: {param!r}", "unknown_parameter", param=param)
    message = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}", "invalid_value", param=param)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _param(place: list[Any]) -> str:
    """Returns a field's name: ("body", "stop", "list[str]", 1) is `stop[1]`."""
    text = ""
    for step in place[1:]:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not text:
            text = step
        elif step.partition("[")[0].partition("-")[0] not in _UNION_TAGS:
            text += f".{step}"
    return text
