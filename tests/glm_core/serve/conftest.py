from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest
import torch
from fastapi import FastAPI

from glm_core.chat import chat_format
from glm_core.chat.transcript import format_or_transcript
from glm_core.checkpoint.loading import load_model
from glm_core.infer.engine import Engine, EngineConfig
from glm_core.serve.app import create_app
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel
from glm_core.serve.process import Server, bind, url_of

from ..chat.tiny_chat import tiny_chat

_CACHE = EngineConfig(cache_bytes=64 * 2**20)


@dataclass(frozen=True)
class Running:
    """A server that answers over real HTTP."""

    url: str
    app: FastAPI
    config: ServeConfig
    server: Server

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)


@contextmanager
def running(models: list[ServedModel], config: ServeConfig) -> Iterator[Running]:
    """Serves models in a thread, until the block ends."""
    app = create_app(models, config)
    ready = threading.Event()
    with bind(config) as bound:
        server = Server(app, config, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        assert ready.wait(10)
        yield Running(url_of(bound), app, config, server)
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServedModel]]:
    """nano-text, which fills blanks, and a random model that reads GLM-4's chats."""
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("glm4")
    generator = tiny_chat("glm4", folder, max_position_embeddings=2048)
    with (
        Engine(*load_model("nano-text", progress=False), config=_CACHE) as nano,
        Engine(generator.model, generator.tokenizer, config=_CACHE) as tiny,
    ):
        format = format_or_transcript(nano.tokenizer, nano.layout)
        yield [
            ServedModel(name="nano-text", engine=nano, chat_format=format),
            ServedModel(name="org/tiny", engine=tiny, chat_format=chat_format("glm4")),
        ]


@pytest.fixture(scope="session")
def server(models: list[ServedModel]) -> Iterator[Running]:
    with running(models, ServeConfig(port=0)) as started:
        yield started


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="session")
def http(server: Running) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url) as made:
        yield made
