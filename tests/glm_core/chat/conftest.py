from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from glm_core.infer import TextGenerator
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import Sampler
from glm_core.tokenizer import Tokenizer

from .tiny_chat import tiny_chat, write_tokenizer


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    """Returns a function that gives the tiny tokenizer of a kind, trained once."""
    known: dict[str, Tokenizer] = {}

    def tokenizer(kind: str) -> Tokenizer:
        if kind not in known:
            known[kind] = write_tokenizer(kind, tmp_path_factory.mktemp(kind))
        return known[kind]

    return tokenizer


@pytest.fixture(scope="session")
def generators(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TextGenerator]:
    """Returns a function that gives the tiny random model of a kind, made once."""
    known: dict[str, TextGenerator] = {}

    def generator(kind: str) -> TextGenerator:
        if kind not in known:
            known[kind] = tiny_chat(kind, tmp_path_factory.mktemp(kind))
        return known[kind]

    return generator


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int]], None]:
    """Returns a function that decides what the model will write, in place of chance."""
    tokens: list[int] = []

    def choose(
        sampler: Sampler, logits_V: torch.Tensor, seen: Sequence[int], num: int, grammar: None
    ) -> TokenLogprob:
        allowed = sampler.restrict(logits_V.float().numpy(), seen, num, grammar)
        assert np.isfinite(allowed[tokens[0]]), "the sampler would never choose this token"
        return TokenLogprob(tokens.pop(0), 0.0)

    monkeypatch.setattr(Sampler, "choose", choose)
    return tokens.extend


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
