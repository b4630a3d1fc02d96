"""How a sampler chooses: its rules in order, its own draws, its log-probabilities, its config."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as hf

from glm_core.infer.sampling import Sampler, SamplingConfig


def _logits(vocab: int = 50, rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(1)) * 3


def test_sampler_repeats_its_choices_when_the_seed_is_the_same() -> None:
    config = SamplingConfig(temperature=1.0, seed=4)
    first, again, other = (
        [sampler.choose(_logits()[0], [], step).token for step in range(20)]
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
    assert [sampler.choose(logits, [], count).token for count in range(3)] == [2, 2, 1]


def test_sampler_reports_the_models_own_logprob() -> None:
    sampler = Sampler(SamplingConfig(repetition_penalty=5.0), [], [])
    logits = torch.tensor([1.0, 2.0, 1.5])
    chosen = sampler.choose(logits, [1], 1)
    assert chosen.token == 2 and chosen.top == ()
    assert chosen.logprob == pytest.approx(float(logits.log_softmax(0)[2]))


def test_excluded_tokens_equal_transformers() -> None:
    expected = hf.SuppressTokensLogitsProcessor([2, 9])(torch.zeros(4, 1), _logits())[0]
    sampler = Sampler(SamplingConfig(), [], [9, 2])
    assert np.array_equal(sampler.restrict(_logits()[0].numpy(), [], 0), expected.numpy())


def test_logit_bias_equals_transformers_sequence_bias() -> None:
    bias = {3: -100.0, 4: 2.5}
    ids = torch.zeros(4, 1, dtype=torch.long)
    processor = hf.SequenceBiasLogitsProcessor([[[token], value] for token, value in bias.items()])
    expected = processor(ids, _logits())[0]
    sampler = Sampler(SamplingConfig(logit_bias=bias), [], [])
    assert np.array_equal(sampler.restrict(_logits()[0].numpy(), [], 0), expected.numpy())


def test_rules_come_in_their_order_and_leave_the_logits_alone() -> None:
    config = SamplingConfig(
        repetition_penalty=2.0,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        logit_bias={1: 3.0, 2: 100.0},
    )
    scores = np.asarray([4.0, 4.0, 4.0, -4.0, 4.0], dtype=np.float32)
    before = scores.copy()
    sampler = Sampler(config, stop_ids=[], excluded_ids=[2])
    # The prompt holds 0 and 3; the answer 1, twice.
    found = sampler.restrict(scores, [0, 3, 1, 1], 2)
    assert found.tolist() == [2.0, 2.0 - 0.5 - 2 * 0.25 + 3.0, -np.inf, -8.0, 4.0]
    assert np.array_equal(scores, before)


def test_presence_penalty_counts_the_answer_alone() -> None:
    sampler = Sampler(SamplingConfig(presence_penalty=2.0), [], [])
    logits = torch.tensor([1.0, 0.0])
    assert [sampler.choose(logits, [0], num_new).token for num_new in (0, 1)] == [0, 1]


def test_bias_decides_when_it_is_largest() -> None:
    sampler = Sampler(SamplingConfig(logit_bias={7: 100.0}, temperature=1.0), [], [])
    assert {sampler.choose(_logits()[0], [], 0).token for _ in range(20)} == {7}


def test_stop_token_of_the_request_is_possible_though_it_is_a_mark_of_the_format() -> None:
    logits = torch.tensor([9.0, 1.0, 2.0])
    config = SamplingConfig(stop_token_ids=[0], min_new_tokens=1)
    sampler = Sampler(config, stop_ids=[1], excluded_ids=[0])
    assert sampler.stop_ids == {0, 1}
    assert [sampler.choose(logits, [], count).token for count in (0, 1)] == [2, 0]


def test_alternatives_are_the_best_before_any_rule_and_no_padding() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 3.0, 9.0])
    config = SamplingConfig(temperature=0.5, logit_bias={0: 100.0})
    sampler = Sampler(config, [], [4], num_top=3, num_ids=4)
    chosen = sampler.choose(logits, [], 0)
    expected = logits.log_softmax(-1).tolist()
    assert chosen.token == 0 and chosen.logprob == pytest.approx(expected[0])
    assert [token for token, _ in chosen.top] == [1, 3, 2]
    assert [value for _, value in chosen.top] == pytest.approx([expected[t] for t in (1, 3, 2)])


def test_sampler_raises_when_the_rules_exclude_every_token() -> None:
    with pytest.raises(ValueError, match="no token can come next"):
        Sampler(SamplingConfig(), [], [0, 1]).choose(torch.zeros(2), [], 0)


def test_sampler_raises_when_alternatives_are_negative() -> None:
    with pytest.raises(ValueError, match="logprobs is -1: it must be at least 0"):
        Sampler(SamplingConfig(), [], [], num_top=-1)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_half_precision_logits_are_taken(temperature: float) -> None:
    sampler = Sampler(SamplingConfig(temperature=temperature, top_p=0.5), [], [])
    logits = torch.tensor([0.0, 20.0], dtype=torch.bfloat16)
    assert sampler.choose(logits, [], 0).token == 1


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
        ({"repetition_penalty": 0.0}, "it must lie between 0.001 and 1000"),
        ({"seed": 2**63}, r"seed is \d+: it must fit into 64 bits"),
        ({"num_beams": 0}, "num_beams is 0: it must be at least 1"),
        ({"num_beams": 2, "temperature": 1.0}, "num_beams is 2: .* set temperature=0"),
        ({"length_penalty": 99.0}, "length_penalty is 99.0: it must lie between"),
        ({"presence_penalty": 2.5}, "presence_penalty is 2.5: it must lie between -2 and 2"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty is nan: it must lie"),
        ({"logit_bias": {1: 101.0}}, "logit_bias is {1: 101.0}: .* numbers between -100 and 100"),
        ({"logit_bias": {-1: 0.0}}, "logit_bias is {-1: 0.0}: it must name ids of at least 0"),
        ({"stop_token_ids": [-1]}, r"stop_token_ids is \[-1\]: it must hold no id below 0"),
        ({"stop": [""]}, r"stop is \[''\]: it must hold no empty string"),
    ],
)
def test_config_raises_when_a_value_is_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**fields)
