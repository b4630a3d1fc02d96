"""A server with the real page and a model that says what the test tells it to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from glm_core.agent.executor.protocol import ExecutionResult, Image, Output
from glm_core.serve import page
from glm_core.serve.config import ServeConfig
from glm_core.serve.errors import add_error_handlers
from glm_core.serve.process import bind, url_of
from glm_core.serve.workbench import Workbench, workbench_router

PAUSE_S = 0.01
"""Between the pieces of an endless answer: about as fast as a model."""


@dataclass
class Answer:
    """What comes back to a question."""

    pieces: Iterable[str | Mapping[str, Any]] = ()
    """Texts, or deltas."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    ends: bool = True
    """Whether the stream comes to its [DONE]."""
    finish_reason: str = "stop"


class Scripted:
    """The model, and what the page asked of it."""

    def __init__(self, workbench: Workbench | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        """By the last message's text."""
        self.abilities = {"tools": True, "images": True, "fill": True}
        self.requests: list[dict[str, Any]] = []
        self.key = ""
        self.cut = threading.Event()
        """Set when the page left an answer before its end."""
        self.app = FastAPI()
        models = SimpleNamespace(get=self._model)
        self.app.state.service = SimpleNamespace(models=models)
        add_error_handlers(self.app)
        self.app.include_router(page.router)
        self.app.include_router(workbench_router(workbench or Workbench()))
        self.app.get("/v1/models")(self._models)
        self.app.get("/health")(self._health)
        self.app.post("/v1/chat/completions")(self._answer)
        self.app.post("/v1/completions")(self._answer)

    def reset(self) -> None:
        """Forgets what a test said and saw."""
        self.answers.clear()
        self.requests.clear()
        self.cut.clear()
        self.key = ""
        self.abilities.update(tools=True, images=True, fill=True)

    def say(self, question: str, *pieces: str | Mapping[str, Any], **told: Any) -> None:
        """Tells what a question is answered with."""
        self.answers[question] = Answer(pieces, **told)

    def _model(self, name: str) -> Any:
        return SimpleNamespace(name=name, chat_format=SimpleNamespace(name="glm4"))

    async def _health(self) -> JSONResponse:
        return JSONResponse({"status": "ready"})

    async def _models(self, request: Request) -> Response:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "wrong key"}}, 401)
        told = {"id": "scripted", "context_length": 4096, "abilities": self.abilities}
        return JSONResponse({"object": "list", "data": [told]})

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        answer = self.answers.get(_asked(body), Answer(("Nobody told me about this.",)))
        if answer.status != 200:
            error = {"error": {"message": "told so", "type": "x", "code": None, "param": None}}
            return JSONResponse(error, answer.status, dict(answer.headers))
        return StreamingResponse(self._stream(answer), media_type="text/event-stream")

    async def _stream(self, answer: Answer) -> AsyncIterator[bytes]:
        is_over = False
        try:
            for piece in answer.pieces:
                yield _event(piece)
                await asyncio.sleep(PAUSE_S if answer.finish_reason == "never" else 0)
            is_over = True
            if answer.ends:
                yield _event({}, answer.finish_reason) + b"data: [DONE]\n\n"
        finally:
            if not is_over:
                self.cut.set()


def endless(word: str = "word ") -> Answer:
    """An answer that goes on until it is stopped."""

    def words() -> Iterator[str]:
        while True:
            yield word

    return Answer(words(), finish_reason="never")


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serves an app in a thread; gives its address."""
    with bind(ServeConfig(port=0)) as bound:
        config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        yield url_of(bound)
        server.should_exit = True
        thread.join(10)


class PictureExecutor:
    """Stands for the sandbox: whatever the code, it prints and draws the same."""

    is_sandboxed = True

    def __init__(self, picture: bytes) -> None:
        self._picture = picture

    def run(self, code: str, timeout_s: float | None = None) -> ExecutionResult:
        image = Image("image/png", self._picture)
        outputs = (Output("stdout", f"ran {len(code)} characters\n"), Output("image", "", image))
        return ExecutionResult(
            outputs=outputs,
            error=None,
            truncated=False,
            timed_out=False,
            kernel_died="",
            fresh_kernel=False,
            duration_s=0.0,
        )

    def interrupt(self) -> None:
        """Nothing runs for long."""

    def close(self) -> None:
        """Nothing is open."""


def _asked(body: Mapping[str, Any]) -> str:
    if "prompt" in body:
        return str(body["prompt"])
    content = body["messages"][-1]["content"]
    if isinstance(content, list):
        content = next(part["text"] for part in content if part["type"] == "text")
    return str(content)


def _event(piece: str | Mapping[str, Any], reason: str | None = None) -> bytes:
    if isinstance(piece, Mapping) and "blank" in piece:
        choice: dict[str, Any] = dict(piece)
    else:
        delta = {"content": piece} if isinstance(piece, str) else dict(piece)
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
