"""A language server in this process, behind real pipes, on a tiny model of random weights."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from codegeex.complete import Completer
from codegeex.fim import find_format
from codegeex.hole import Hole
from codegeex.lsp.late import LateCompleter
from codegeex.lsp.server import CodeServer
from codegeex.lsp.stdio import converse
from codegeex.testing import tiny_code_model, tiny_code_tokenizer
from glm_core.infer.choose_rows import Turn
from glm_core.infer.engine import Engine, EngineConfig, scheduler
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import Sampler

from .client import Client

FILE = "file:///src/project/module.py"


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Nothing may be left in it when a test ends."""
    torch.set_num_threads(1)
    config = EngineConfig(max_running=8, cache_bytes=1 << 22)
    with Engine(*tiny_code_model(), config=config) as made:
        yield made
        made.drain()
        stats = made.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)


@pytest.fixture
def completer(engine: Engine) -> Completer:
    return Completer(engine, find_format("spm"), "tiny-code", heals=False)


@pytest.fixture
def model(completer: Completer) -> LateCompleter:
    return LateCompleter(lambda: completer, "tiny-code")


@pytest.fixture
def server(model: LateCompleter) -> CodeServer:
    return CodeServer(model, "0")


@pytest.fixture
def client(server: CodeServer) -> Iterator[Client]:
    """Talks to the server; a test begins with `initialize`."""
    with talking(server) as made:
        yield made


@contextmanager
def connected(model: LateCompleter) -> Iterator[Client]:
    """Talks to a server with a model of the test's own."""
    with talking(CodeServer(model, "0")) as made:
        yield made


@contextmanager
def talking(server: CodeServer) -> Iterator[Client]:
    """Runs a server in a thread until the block ends; its streams are real pipes."""
    (server_in, client_out), (client_in, server_out) = os.pipe(), os.pipe()
    statuses: list[int] = []

    def run() -> None:
        with open(server_in, "rb") as stdin, open(server_out, "wb") as stdout:
            statuses.append(asyncio.run(converse(server.protocol, stdin, stdout)))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    with closing(server), open(client_out, "wb") as to_server, open(client_in, "rb") as from_server:
        made = Client(to_server, from_server)
        yield made
        to_server.close()
        thread.join(20)
        assert not thread.is_alive()
        made.join()
    assert len(statuses) == 1


@pytest.fixture
def holes(completer: Completer, monkeypatch: pytest.MonkeyPatch) -> list[Hole]:
    """What the model is asked for."""
    asked: list[Hole] = []
    submit = completer.submit

    def noted(hole: Hole, options: Any) -> Any:
        asked.append(hole)
        return submit(hole, options)

    monkeypatch.setattr(completer, "submit", noted)
    return asked


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns a function that says what the model writes.

    The first text is the most probable one; the others are drawn by turns.
    """

    def say(*texts: str) -> None:
        tokenizer, drawn, plans = tiny_code_tokenizer(), list[str](), dict[Sampler, list[int]]()

        def plan(turn: Turn) -> list[int]:
            if turn.sampler not in plans:
                if turn.sampler.config.temperature == 0:
                    text = texts[0]
                else:
                    drawn.append(texts[1 + len(drawn) % (len(texts) - 1)])
                    text = drawn[-1]
                plans[turn.sampler] = [*tokenizer.encode(text), tokenizer.eos_id]
            return plans[turn.sampler]

        def choose(logits_BV: Tensor, turns: Sequence[Turn]) -> list[TokenLogprob | Exception]:
            tokens = [plan(turn)[turn.num_new] for turn in turns]
            return [TokenLogprob(token, -1.0) for token in tokens]

        monkeypatch.setattr(scheduler, "choose_rows", choose)

    return say


def until(is_so: Callable[[], bool], patience_s: float = 20) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)
