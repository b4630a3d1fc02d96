"""Rows chosen together: each as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from glm_core.infer.choose_rows import Turn, choose_rows
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import Sampler, SamplingConfig

CONFIGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 0.7, "top_k": 5, "seed": 3},
    {"temperature": 1.5, "top_p": 0.8, "min_p": 0.01},
    {"repetition_penalty": 1.4, "presence_penalty": 1.0},
    {"temperature": 1.0, "logit_bias": {3: 5.0}, "min_new_tokens": 4},
]


def _samplers() -> list[Sampler]:
    return [Sampler(SamplingConfig(**c), [1, 2], [0], num_top=i) for i, c in enumerate(CONFIGS)]


def _turn(sampler: Sampler, step: int) -> Turn:
    return Turn(sampler, list(range(10, 10 + step)), step)


def _run_alone(logits_SBV: torch.Tensor) -> list[list[TokenLogprob]]:
    return [
        [
            sampler.choose(logits_BV[row], _turn(sampler, step).seen_ids, step)
            for step, logits_BV in enumerate(logits_SBV)
        ]
        for row, sampler in enumerate(_samplers())
    ]


@pytest.mark.parametrize("vocab", [50, 40_001])
def test_rows_are_bit_identical_to_one_by_one_when_the_batch_changes(vocab: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits_SBV = torch.randn(6, len(CONFIGS), vocab, generator=generator) * 4
    expected = _run_alone(logits_SBV)
    samplers = _samplers()
    found: list[list[TokenLogprob | Exception]] = [[] for _ in CONFIGS]
    for step, logits_BV in enumerate(logits_SBV):
        order = torch.randperm(len(CONFIGS), generator=generator).tolist()
        for part in (order[:2], order[2:]):
            turns = [_turn(samplers[row], step) for row in part]
            for row, chosen in zip(part, choose_rows(logits_BV[part], turns), strict=True):
                found[row].append(chosen)
    assert found == expected


def test_other_rows_are_chosen_when_one_fails() -> None:
    logits_BV = torch.zeros(3, 50)
    logits_BV[1, 7] = torch.nan
    samplers = [Sampler(SamplingConfig(temperature=1.0, seed=row), [], []) for row in range(3)]
    first, failed, last = choose_rows(logits_BV, [Turn(s, [], 0) for s in samplers])
    assert isinstance(failed, ValueError) and "not finite" in str(failed)
    alone = Sampler(SamplingConfig(temperature=1.0, seed=2), [], []).choose(logits_BV[2], [], 0)
    assert isinstance(first, TokenLogprob) and last == alone


@pytest.mark.gpu
def test_rows_on_a_gpu_are_the_tokens_of_the_cpu() -> None:
    logits_BV = torch.randn(len(CONFIGS), 151_552, generator=torch.Generator().manual_seed(0)) * 4
    on_cpu = choose_rows(logits_BV, [_turn(sampler, 0) for sampler in _samplers()])
    on_gpu = choose_rows(logits_BV.cuda(), [_turn(sampler, 0) for sampler in _samplers()])
    for left, right in zip(on_cpu, on_gpu, strict=True):
        assert isinstance(left, TokenLogprob) and isinstance(right, TokenLogprob)
        assert left.token == right.token
        assert left.logprob == pytest.approx(right.logprob, abs=1e-5)
