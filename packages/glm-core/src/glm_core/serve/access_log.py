"""One line of JSON for each request; what was asked and answered is not in it by default."""

from __future__ import annotations

import json
import logging
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm_core.serve.metrics import Metrics

logger = logging.getLogger("glm_core.serve.access")
_NOTES = "glm_notes"


class AccessLog:
    """Logs and counts requests, and gives each an id that the answer's `x-request-id` tells.

    Args:
        app: the rest of the server.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes: dict[str, Any] = {"id": f"req_{secrets.token_hex(12)}"}
        scope.setdefault("state", {})[_NOTES] = notes
        start, status = time.monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = notes["id"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            seconds = time.monotonic() - start
            self._metrics.count(_place(scope), scope["method"], status, seconds)
            logger.info(_line(scope, status, seconds, notes))


def notes_of(request: Request) -> dict[str, Any]:
    """Returns what the log will tell of a request besides its address; handlers add to it."""
    notes: dict[str, Any] = request.scope.setdefault("state", {}).setdefault(_NOTES, {})
    return notes


def _place(scope: Scope) -> str:
    """The address as the routes name it: what clients make up must not become names of counters."""
    return str(getattr(scope.get("route"), "path", "(none)"))


def _line(scope: Scope, status: int, seconds: float, notes: dict[str, Any]) -> str:
    client = scope.get("client")
    told = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "client": client[0] if client else None,
        "method": scope["method"],
        "path": scope["path"],
        "status": status or None,  # None: the client left before there was an answer
        "seconds": round(seconds, 4),
    }
    return json.dumps(told | notes)
