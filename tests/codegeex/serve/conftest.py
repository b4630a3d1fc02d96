"""A server of a tiny code model of random weights, over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx2
import pytest
import torch
from fastapi import FastAPI

from codegeex.complete import Completer
from codegeex.fim import format_of
from codegeex.serve.app import create_code_app
from codegeex.testing import tiny_code_model
from glm_core.chat.transcript import format_or_transcript
from glm_core.infer.engine import Engine, EngineConfig
from glm_core.model import Transformer
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel
from glm_core.serve.process import Server, bind, url_of

NAME = "tiny-code"
CONTEXT = 512


@dataclass(frozen=True)
class Running:
    """A server that answers over real HTTP."""

    url: str
    app: FastAPI
    server: Server

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)


@contextmanager
def running(app: FastAPI, config: ServeConfig) -> Iterator[Running]:
    """Serves in a thread, until the block ends."""
    ready = threading.Event()
    with bind(config) as bound:
        server = Server(app, config, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        assert ready.wait(10)
        yield Running(url_of(bound), app, server)
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    torch.set_num_threads(1)
    alike, tokenizer = tiny_code_model(context=CONTEXT)
    model = Transformer(replace(alike.config, init_std=0.5))  # says other things than one letter
    model.init_weights(0)
    config = EngineConfig(max_running=8, cache_bytes=1 << 24)
    with Engine(model, tokenizer, config=config) as made:
        yield made


@pytest.fixture(scope="session")
def completer(engine: Engine) -> Completer:
    return Completer(engine, format_of(engine.tokenizer), NAME)


@pytest.fixture(scope="session")
def served(engine: Engine) -> ServedModel:
    format = format_or_transcript(engine.tokenizer, engine.layout)
    return ServedModel(name=NAME, engine=engine, chat_format=format)


@pytest.fixture(scope="session")
def server(served: ServedModel, completer: Completer) -> Iterator[Running]:
    config = ServeConfig(port=0)
    app = create_code_app([served], {NAME: completer}, config)
    with running(app, config) as started:
        yield started


@pytest.fixture(scope="session")
def http(server: Running) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30) as made:
        yield made
