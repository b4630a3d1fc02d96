"""What is wrong with a request is said before it waits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from glm_core.infer import Regex
from glm_core.infer.engine import (
    Engine,
    EngineRequest,
)
from glm_core.model import Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]
Ask = Callable[..., EngineRequest]
OpenEngine = Callable[..., AbstractContextManager[Engine]]


def test_bad_requests_are_refused_before_they_wait(
    build_model: Build, tokenizer: ByteBPETokenizer, ask: Ask, open_engine: OpenEngine
) -> None:
    with open_engine(build_model(), tokenizer, cache_bytes=2 * 65536) as engine:
        layout = engine.layout
        faults: dict[str, Callable[[], EngineRequest]] = {
            "shorten it by at least": lambda: ask("The value " * 60, layout),
            "sampling.num_beams is 2: it must be 1 in": lambda: ask("A", layout, {"num_beams": 2}),
            "choices is 0: it must be at least 1": lambda: ask("A", layout, choices=0),
            "choices is 6: it must be at most 5": lambda: ask("A", layout, choices=6),
            "pages of the cache, which has 2": lambda: ask("A", layout, choices=5),
            "logprobs is -1": lambda: ask("A", layout, logprobs=-1),
            "prompt_logprobs is 0: it must be None": lambda: ask("A", layout, prompt_logprobs=0),
            "timeout_s is 0: it must be above 0": lambda: ask("A", layout, timeout_s=0),
            "name the client when newest_wins": lambda: ask("A", layout, newest_wins=True),
            "draft holds the id -1: ids must lie": lambda: ask("A", layout, draft=(3, -1)),
            "regular expression cannot be used": lambda: ask("A", layout, grammar=Regex("(")),
            "sampling.stop_token_ids names the id": lambda: ask(
                "A", layout, {"stop_token_ids": [10**6]}
            ),
        }
        for message, request in faults.items():
            with pytest.raises(ValueError, match=message):
                engine.submit(request())
        assert engine.stats().counters["submitted"] == 0
