"""Each sampling rule against transformers' logits processors, and the draw against its odds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.generation import logits_process as hf

from glm_core.infer.sampling import (
    Sampler,
    SamplingConfig,
    draw,
    exclude_tokens,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    shape_distribution,
)


def _logits(vocab: int = 50, rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(1)) * 3


@pytest.mark.parametrize("k", [1, 3, 50, 99])
def test_top_k_equals_transformers(k: int) -> None:
    expected = hf.TopKLogitsWarper(k)(torch.zeros(4, 1, dtype=torch.long), _logits())
    assert torch.equal(keep_top_k(_logits(), k), expected)


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.9, 0.999])
def test_top_p_equals_transformers(p: float) -> None:
    expected = hf.TopPLogitsWarper(p)(torch.zeros(4, 1, dtype=torch.long), _logits())
    assert torch.equal(keep_top_p(_logits(), p), expected)


@pytest.mark.parametrize("p", [0.01, 0.2, 1.0])
def test_min_p_equals_transformers(p: float) -> None:
    expected = hf.MinPLogitsWarper(p)(torch.zeros(4, 1, dtype=torch.long), _logits())
    assert torch.equal(keep_min_p(_logits(), p), expected)


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_repetition_penalty_equals_transformers_when_tokens_repeat(penalty: float) -> None:
    seen = torch.tensor([[1, 1, 7], [0, 49, 7], [3, 2, 1], [5, 5, 5]])
    expected = hf.RepetitionPenaltyLogitsProcessor(penalty)(seen, _logits())
    assert torch.equal(penalize_repetition(_logits(), seen, penalty), expected)


def test_exclude_tokens_equals_transformers() -> None:
    expected = hf.SuppressTokensLogitsProcessor([2, 9])(torch.zeros(4, 1), _logits())
    assert torch.equal(exclude_tokens(_logits(), torch.tensor([2, 9])), expected)


def test_rules_together_equal_transformers_in_its_order() -> None:
    config = SamplingConfig(temperature=0.7, top_k=20, top_p=0.9, min_p=0.05)
    expected, ids = _logits(), torch.zeros(4, 1, dtype=torch.long)
    for rule in (
        hf.TemperatureLogitsWarper(0.7),
        hf.TopKLogitsWarper(20),
        hf.TopPLogitsWarper(0.9),
        hf.MinPLogitsWarper(0.05),
    ):
        expected = rule(ids, expected)
    assert torch.equal(shape_distribution(_logits(), config), expected)


def test_draw_follows_the_distribution_and_skips_impossible_tokens() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(6)
    for _ in range(4000):
        counts[draw(probabilities.log(), generator)] += 1
    # Measured largest deviation 0.006; four standard deviations of 4000 draws are 0.032.
    torch.testing.assert_close(counts / 4000, probabilities, atol=0.032, rtol=0)
    assert counts[probabilities == 0].sum() == 0


def test_draw_takes_the_only_token_when_it_is_the_last() -> None:
    logits = torch.tensor([float("-inf"), float("-inf"), 1.0])
    assert draw(logits, torch.Generator().manual_seed(0)) == 2


def test_sampler_repeats_its_choices_when_the_seed_is_the_same() -> None:
    config = SamplingConfig(temperature=1.0, seed=4)
    first, again, other = (
        [sampler.choose(_logits()[0], [], step)[0] for step in range(20)]
        for sampler in (
            Sampler(config, [], []),
            Sampler(config, [], []),
            Sampler(SamplingConfig(temperature=1.0, seed=5), [], []),
        )
    )
    assert first == again != other


def test_sampler_cannot_stop_when_the_answer_is_shorter_than_its_least() -> None:
    sampler = Sampler(SamplingConfig(min_new_tokens=2), stop_ids=[1], excluded_ids=[0])
    logits = torch.tensor([9.0, 8.0, 1.0])
    assert [sampler.choose(logits, [], count)[0] for count in range(3)] == [2, 2, 1]


def test_sampler_reports_the_models_own_logprob() -> None:
    sampler = Sampler(SamplingConfig(repetition_penalty=5.0), [], [])
    logits = torch.tensor([1.0, 2.0, 1.5])
    token, logprob = sampler.choose(logits, [1], 1)
    assert token == 2
    assert logprob == pytest.approx(float(logits.log_softmax(0)[2]))


def test_sampler_raises_when_logits_are_not_finite() -> None:
    with pytest.raises(ValueError, match="logits are not finite: .*dtype=torch.float32"):
        Sampler(SamplingConfig(), [], []).choose(torch.tensor([1.0, float("nan")]), [], 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0: it must be at least 1"),
        ({"min_new_tokens": 65}, r"min_new_tokens is 65: .* max_new_tokens \(64\)"),
        ({"temperature": -0.5}, "temperature is -0.5: it must be a finite number of at least 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1: it must be at least 0; 0 keeps all"),
        ({"top_p": 0.0}, r"top_p is 0.0: it must lie in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": 2.0}, r"min_p is 2.0: it must lie in \[0, 1\]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0: it must be a positive number"),
        ({"seed": 2**63}, r"seed is \d+: it must fit into 64 bits"),
        ({"num_beams": 0}, "num_beams is 0: it must be at least 1"),
        ({"num_beams": 2, "temperature": 1.0}, "num_beams is 2: .* set temperature=0"),
        ({"length_penalty": 99.0}, "length_penalty is 99.0: it must lie between"),
        ({"stop": [""]}, r"stop is \[''\]: it must hold no empty string"),
    ],
)
def test_config_raises_when_a_value_is_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**fields)
