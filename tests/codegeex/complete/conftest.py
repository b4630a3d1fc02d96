"""A tiny code model of random weights, and one that writes what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from codegeex.complete import Completer
from codegeex.fim import format_of
from codegeex.testing import tiny_code_model, tiny_code_tokenizer
from glm_core.infer.beginning import BeginningState
from glm_core.infer.choose_rows import Turn
from glm_core.infer.engine import Engine, EngineConfig, scheduler
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import Sampler
from glm_core.model import Transformer
from glm_core.tokenizer import ByteBPETokenizer

Script = Callable[[Sequence[str]], None]


@pytest.fixture(scope="session")
def model() -> Transformer:
    torch.set_num_threads(1)
    return tiny_code_model()[0]


@pytest.fixture(scope="session")
def tokenizer() -> ByteBPETokenizer:
    return tiny_code_tokenizer()


@pytest.fixture
def completer(model: Transformer, tokenizer: ByteBPETokenizer) -> Iterator[Completer]:
    """Nothing of it may be left in the engine when a test ends."""
    config = EngineConfig(max_running=6, cache_bytes=1 << 22)
    with Engine(model, tokenizer, config=config) as engine:
        yield Completer(engine, format_of(tokenizer), "tiny-code")
        engine.drain()
        stats = engine.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tokenizer: ByteBPETokenizer) -> Script:
    """Returns a function that says what the model writes into the hole: a text for each choice.

    Everything else is real, log-probabilities too. A text is followed by the model's end.
    """

    def write(texts: Sequence[str]) -> None:
        plans: dict[Sampler, list[int]] = {}

        def plan(turn: Turn) -> list[int]:
            if turn.sampler not in plans:
                must = (
                    turn.grammar._rest.decode() if isinstance(turn.grammar, BeginningState) else ""
                )
                text = must + texts[len(plans) % len(texts)]
                plans[turn.sampler] = [*tokenizer.encode(text), tokenizer.eos_id]
            return plans[turn.sampler]

        def choose(logits_BV: Tensor, turns: Sequence[Turn]) -> list[TokenLogprob | Exception]:
            logprobs_BV = logits_BV.log_softmax(dim=-1)
            tokens = [plan(turn)[turn.num_new] for turn in turns]
            return [
                TokenLogprob(token, float(logprobs_V[token]))
                for token, logprobs_V in zip(tokens, logprobs_BV, strict=True)
            ]

        monkeypatch.setattr(scheduler, "choose_rows", choose)

    return write
