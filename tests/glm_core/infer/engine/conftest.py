"""Requests of every kind for the engine's tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from glm_core.infer import SamplingConfig
from glm_core.infer.blanks import Prompt, blank_prompt, continuation_prompt
from glm_core.infer.engine import Engine, EngineConfig, EngineRequest
from glm_core.infer.layout import Layout
from glm_core.model import Transformer
from glm_core.tokenizer import ByteBPETokenizer

Ask = Callable[..., EngineRequest]
SMALL = EngineConfig(max_running=5, prefill_chunk=7, cache_bytes=1 << 20)


@pytest.fixture(scope="session")
def ask(tokenizer: ByteBPETokenizer) -> Ask:
    """Returns a function that makes a request: text, layout, fields of sampling and request."""

    def make(
        text: str, layout: Layout, sampling: dict[str, Any] | None = None, **fields: Any
    ) -> EngineRequest:
        config = SamplingConfig(**{"max_new_tokens": 8, **(sampling or {})})
        return EngineRequest(prompt=_prompt(text, tokenizer, layout), sampling=config, **fields)

    return make


def _prompt(text: str, tokenizer: ByteBPETokenizer, layout: Layout) -> Prompt:
    reads = blank_prompt if "MASK" in text else continuation_prompt
    return reads(text, tokenizer, layout)


@pytest.fixture(scope="session")
def held() -> Callable[[Engine], AbstractContextManager[None]]:
    """Returns a context in which an engine makes no step."""

    @contextmanager
    def hold(engine: Engine) -> Iterator[None]:
        go, step = threading.Event(), engine._scheduler.step

        def waiting_step() -> None:
            go.wait()
            step()

        engine._scheduler.step = waiting_step  # type: ignore[method-assign]
        try:
            yield
        finally:
            engine._scheduler.step = step  # type: ignore[method-assign]
            go.set()

    return hold


@pytest.fixture(scope="session")
def open_engine() -> Callable[..., AbstractContextManager[Engine]]:
    """Returns a context with an engine that must have given back everything when it ends."""

    @contextmanager
    def opened(model: Transformer, tokenizer: ByteBPETokenizer, **limits: Any) -> Iterator[Engine]:
        before = threading.active_count()
        with Engine(model, tokenizer, config=replace(SMALL, **limits)) as engine:
            yield engine
            engine.drain()
            stats = engine.stats()
        assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)
        assert threading.active_count() == before

    return opened
