"""Who is let in: keys, and the names by which a local server may be called."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from glm_core.serve.errors import ApiError

KEY_VARIABLE = "GLM_API_KEY"
_READING = ("GET", "HEAD")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


def read_keys(path: str | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Returns the keys of a file, one a line, and that of the environment.

    Raises:
        ValueError: the file cannot be read, or holds none.
    """
    given = environment.get(KEY_VARIABLE, "").strip()
    keys = [given] if given else []
    if path is not None:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise ValueError(f"--api-key-file: {path} cannot be read ({error})") from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise ValueError(f"--api-key-file: {path} holds no key: write one a line")
        keys += found
    return tuple(dict.fromkeys(keys))


class KeyCheck:
    """Lets requests through that bring one of the keys, or ask for what is public.

    Args:
        app: the rest of the server.
        keys: none lets everybody in.
        public: paths that may be read without a key; one that ends with / (the root alone does
            not count) stands for all below it.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], public: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]
        self._paths = frozenset(public)
        self._folders = tuple(path for path in public if path.endswith("/") and path != "/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may_enter(scope):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "the API key is missing or wrong: send it as `Authorization: Bearer KEY`",
            "invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error.response(scope)(scope, receive, send)

    def _may_enter(self, scope: Scope) -> bool:
        path = scope["path"]
        is_public = path in self._paths or path.startswith(self._folders)
        if not self._digests or (is_public and scope["method"] in _READING):
            return True
        kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        given = _digest(key.strip())
        # Every key is compared, in full: how long it takes tells nothing.
        equal = [hmac.compare_digest(given, known) for known in self._digests]
        return kind.lower() == "bearer" and any(equal)


class HostCheck:
    """Refuses requests that name the server otherwise than its owner does.

    A web page can let its own name point to 127.0.0.1 and would then be of the same origin as a
    server there (DNS rebinding); the browser still sends the page's name as Host.

    Args:
        app: the rest of the server.
        names: allowed besides those of loopback.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in (*_LOCAL_NAMES, *names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._knows(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            403,
            "this server does not answer to that Host: call it localhost, or start it with "
            "--allow-host",
            "host_not_allowed",
        )
        await error.response(scope)(scope, receive, send)

    def _knows(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        return (name if colon and port.isdigit() else host).lower() in self._names


def _digest(key: str) -> bytes:
    """Digests are of one length, so that comparing them does not tell a key's."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
