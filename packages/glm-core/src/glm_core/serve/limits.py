"""How large a request may be, how long its body may take, and when none is taken any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm_core.serve.errors import ApiError, draining


class BodyLimit:
    """Reads a request's body, within bounds of size and time, before anybody looks at it.

    Args:
        app: the rest of the server.
        max_bytes: largest body, whether its length was announced or not.
        timeout_s: seconds that the body may take.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(scope, receive)
        except TimeoutError:
            error = ApiError(
                408,
                f"the body took longer than {self._timeout_s:g} seconds",
                "request_timeout",
                headers={"Connection": "close"},
            )
            await error.response(scope)(scope, receive, send)
        except ApiError as error:
            await error.response(scope)(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Returns the body; None when the client has gone."""
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large()
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self) -> ApiError:
        # Without `Connection: close` the rest of the body is read and dropped, for a while (see
        # protocol.py): a client that is still sending would else never see this answer.
        return ApiError(
            413,
            f"the body is larger than {self._max_bytes:,} bytes: send less",
            "request_too_large",
        )


class DrainCheck:
    """Refuses new requests while the server waits for the running ones to end.

    Args:
        app: the rest of the server.
        is_draining: whether it does.
        retry_after_s: when clients should ask again.
        always: paths that are answered nevertheless.
    """

    def __init__(
        self,
        app: ASGIApp,
        is_draining: Callable[[], bool],
        retry_after_s: float,
        always: Sequence[str] = ("/health", "/metrics"),
    ) -> None:
        self._app = app
        self._is_draining = is_draining
        self._retry_after_s = retry_after_s
        self._always = frozenset(always)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_new = scope["type"] == "http" and scope["path"] not in self._always
        if is_new and self._is_draining():
            await draining(self._retry_after_s).response(scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns what gives the body once, and from then on what the connection gives."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
