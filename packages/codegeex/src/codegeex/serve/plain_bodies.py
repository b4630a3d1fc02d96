"""JSON that is not announced as such: `curl -d`, as Ollama's and llama.cpp's documents show it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

_CURL = "application/x-www-form-urlencoded"
_OF_BROWSERS = ("origin", "sec-fetch-site", "sec-fetch-mode", "referer")


class PlainBodies:
    """Takes what programs send without saying its kind for JSON.

    A page of another site may send such bodies too, without asking first, and core refuses them
    for that; but a browser says where a request comes from.

    Args:
        app: the rest of the server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            headers = MutableHeaders(scope=scope)
            is_browser = any(name in headers for name in _OF_BROWSERS)
            if not is_browser and headers.get("content-type", _CURL) == _CURL:
                headers["content-type"] = "application/json"
        await self._app(scope, receive, send)
