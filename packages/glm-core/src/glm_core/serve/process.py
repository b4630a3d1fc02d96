"""The server as a process: sockets, signals, and an end without broken answers."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI

from glm_core.serve.config import ServeConfig
from glm_core.serve.protocol import protocol_class
from glm_core.serve.service import Service

logger = logging.getLogger(__name__)


def bind(config: ServeConfig) -> socket.socket:
    """Takes the server's address; called before weights are loaded, which can take minutes.

    Raises:
        ValueError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named: else the second packet
    # of every answer waits for the client to acknowledge the first, which takes it 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((config.host, config.port))
    except OSError as error:
        bound.close()
        raise ValueError(
            f"cannot listen on {config.host} port {config.port} ({error.strerror or error}): "
            "choose another --host or --port (0 takes a free one)"
        ) from error
    return bound


def url_of(bound: socket.socket) -> str:
    """Returns the address of a server on this socket."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Serves an app until SIGTERM or SIGINT.

    The first signal begins the end: running requests are answered, new ones get 503, and after
    `drain_timeout_s` what is left is cancelled. A second signal ends at once.

    Args:
        app: from `create_app`.
        config: the app's.
        when_ready: called once requests can come.
    """

    def __init__(
        self, app: FastAPI, config: ServeConfig, when_ready: Callable[[], None] | None = None
    ) -> None:
        super().__init__(_uvicorn_config(app, config))
        self._service: Service = app.state.service
        self._drain_timeout_s = config.drain_timeout_s
        self._when_ready = when_ready
        self._deadline = 0.0
        self._closing: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes a signal; it is not raised again once the server has ended."""
        if self._service.is_draining:
            self.should_exit = self.force_exit = True
            return
        self._deadline = time.monotonic() + self._drain_timeout_s
        self._service.is_draining = True
        name = signal.Signals(sig).name
        logger.info("%s: finishing what is running; once more to stop at once", name)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._when_ready is not None:
            self._when_ready()

    async def on_tick(self, counter: int) -> bool:
        """Looks ten times a second whether it is time to end."""
        if self._service.is_draining and not self.should_exit:
            self._end_if_idle()
        return await super().on_tick(counter)

    def _end_if_idle(self) -> None:
        if not self.server_state.tasks:
            self.should_exit = True
        elif self._closing is None and time.monotonic() > self._deadline:
            logger.info("cancelling %d requests that did not end", len(self.server_state.tasks))
            self._closing = asyncio.ensure_future(self._close_engines())

    async def _close_engines(self) -> None:
        """Cancels what is left; whoever still waits is told so, and a moment later cut off."""
        for model in self._service.models:
            await asyncio.to_thread(model.engine.close)
        await asyncio.sleep(1.0)
        self.should_exit = True


def serve(
    app: FastAPI,
    config: ServeConfig,
    bound: socket.socket,
    when_ready: Callable[[], None] | None = None,
) -> None:
    """Serves until a signal comes; the socket is closed at the end."""
    Server(app, config, when_ready).run(sockets=[bound])


def ready_text(names: Sequence[str], url: str, has_key: bool) -> str:
    """Returns what the start shows: what is served, where, and how to ask."""
    key = ' -H "Authorization: Bearer $GLM_API_KEY"' if has_key else ""
    asked = {"model": names[0], "messages": [{"role": "user", "content": "Hello"}]}
    body = json.dumps(asked, ensure_ascii=False)
    return (
        f"serving {', '.join(names)} at {url}\n"
        f"  page         {url}/\n"
        f"  OpenAI API   {url}/v1 (described at {url}/docs)\n"
        f"  health       {url}/health, numbers at {url}/metrics\n"
        f"  ask          curl {url}/v1/chat/completions{key} \\\n"
        f"                 -H 'Content-Type: application/json' -d '{body}'\n"
        "  stop         Ctrl+C"
    )


def _uvicorn_config(app: FastAPI, config: ServeConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol_class(config.max_connections, config.header_timeout_s, config.send_timeout_s),
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
