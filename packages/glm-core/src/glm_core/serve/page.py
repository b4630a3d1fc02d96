"""`GET /`: the page. Its sources are in packages/glm-core/web, what is served was built from them.

The policy forbids whatever the page does not need: scripts but its own, other hosts, frames, forms,
and making elements of text (trusted types), so that what a model writes cannot become one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from glm_core.serve.errors import ApiError

FOLDER = Path(__file__).parent / "page"
ASSETS = "/assets/"
"""What lies below needs no key: it is the same for everybody."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_METHODS = ["GET", "HEAD"]

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=_METHODS)
async def page(request: Request) -> Response:
    return _answer(_files()["index.html"], request)


@router.api_route(ASSETS + "{name}", methods=_METHODS)
async def asset(name: str, request: Request) -> Response:
    file = _files().get(f"assets/{name}")
    if file is None:
        raise ApiError(404, f"the page has no file {name!r}", "unknown_url")
    return _answer(file, request)


@dataclass(frozen=True)
class _File:
    content: bytes
    kind: str
    etag: str


@cache
def _files() -> dict[str, _File]:
    """Reads the few files there are; a request's path never reaches the file system."""
    files = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in _KINDS:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            files[path.relative_to(FOLDER).as_posix()] = _File(content, _KINDS[path.suffix], etag)
    return files


def _answer(file: _File, request: Request) -> Response:
    headers = _HEADERS | {"ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.kind)
