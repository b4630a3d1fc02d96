"""A model hub of one machine: what huggingface_hub asks of the real one, on the loopback device."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubImitation:
    """What the hub has, what went wrong with it, and what it was asked for."""

    repos: dict[str, dict[str, bytes]]
    """Files of each model, by name."""
    gated: set[str] = field(default_factory=set)
    breaks_after: dict[str, list[int]] = field(default_factory=dict)
    """For a file, after how many bytes each of the next answers breaks off."""
    refuses: set[str] = field(default_factory=set)
    """Files that are answered with an error of the server."""
    corrupts: set[str] = field(default_factory=set)
    """Files that are sent with other bytes than promised."""
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of every request."""
    url: str = ""

    def fetched(self) -> list[str]:
        """Names of the files whose contents were asked for."""
        return [
            path.rpartition("/")[2]
            for method, path, _ in self.log
            if method == "GET" and "/resolve/" in path
        ]

    def ranges(self, name: str) -> list[str | None]:
        """The Range of every request for the contents of a file."""
        return [span for method, path, span in self.log if method == "GET" and path.endswith(name)]


@contextmanager
def serve(hub: HubImitation) -> Iterator[HubImitation]:
    """The hub answers, in threads of its own, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(hub: HubImitation) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            """Keep stderr for the tests."""

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.log.append((self.command, path, self.headers.get("Range")))
            words = path.strip("/").split("/")
            if words[:2] == ["api", "models"]:
                self._api("/".join(words[2:4]), words[4:])
            elif words[2:3] == ["resolve"]:
                self._file("/".join(words[:2]), words[3], "/".join(words[4:]))
            else:
                self._error(404, None)

        def _api(self, repo: str, rest: list[str]) -> None:
            if self._refused(repo, rest[1] if len(rest) > 1 else "main"):
                return
            files = hub.repos[repo]
            if rest[:1] == ["tree"]:
                self._json([_entry(name, data) for name, data in files.items()])
            else:
                self._json({"id": repo, "sha": COMMIT, "siblings": []})

        def _refused(self, repo: str, revision: str) -> bool:
            if repo not in hub.repos:
                self._error(404, "RepoNotFound")
            elif repo in hub.gated:
                self._error(403, "GatedRepo")
            elif revision not in ("main", COMMIT):
                self._error(404, "RevisionNotFound")
            else:
                return False
            return True

        def _file(self, repo: str, revision: str, name: str) -> None:
            if self._refused(repo, revision):
                return
            if self.command == "GET" and name in hub.refuses:
                self._error(500, None)
                return
            data = hub.repos[repo][name]
            etag = hashlib.sha256(data).hexdigest()
            if name in hub.corrupts:
                data = bytes(len(data))
            begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=")[:-1])
            self.send_response(206 if begin else 200)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(data) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if self.command == "HEAD":
                return
            breaks = hub.breaks_after.get(name, [])
            if breaks:
                self.wfile.write(data[begin : begin + breaks.pop(0)])
                self.close_connection = True
            else:
                self.wfile.write(data[begin:])

        def _json(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _error(self, status: int, code: str | None) -> None:
            self.send_response(status)
            if code is not None:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


def _entry(name: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    lfs = {"oid": digest, "size": len(data), "pointerSize": 130}
    return {"type": "file", "path": name, "size": len(data), "oid": digest[:40], "lfs": lfs}
