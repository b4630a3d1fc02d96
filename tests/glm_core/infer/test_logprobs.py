"""Log-probabilities of a prompt's tokens against torch's log_softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from glm_core.infer.logprobs import log_normalizer, prompt_logprobs


@pytest.mark.parametrize("scale", [1e-3, 1.0, 80.0])
def test_normalizer_of_a_row_equals_logsumexp(scale: float) -> None:
    logits_V = torch.randn(9000, generator=torch.Generator().manual_seed(1)) * scale
    logits_V[7] = -math.inf
    expected = float(logits_V.double().logsumexp(-1))
    # worst seen: 4e-7 of the result
    assert log_normalizer(logits_V.numpy()) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_normalizer_is_not_finite_when_a_logit_is_not(bad: float) -> None:
    assert not math.isfinite(log_normalizer(np.array([0.0, bad, 1.0], dtype=np.float32)))
    assert log_normalizer(np.full(3, -math.inf, dtype=np.float32)) == -math.inf


def test_prompt_logprobs_equal_log_softmax() -> None:
    logits_TV = torch.randn(5, 30, generator=torch.Generator().manual_seed(0)).bfloat16()
    ids = [3, 0, 29, 7, 7]
    expected_TV = logits_TV.float().log_softmax(-1)
    found = prompt_logprobs(logits_TV, ids, count=4, num_ids=20)
    assert [entry.token for entry in found] == ids
    for row, entry in enumerate(found):
        assert entry.logprob == pytest.approx(float(expected_TV[row, ids[row]]), abs=1e-6)
        best = expected_TV[row, :20].topk(4)
        assert sorted(token for token, _ in entry.top) == sorted(best.indices.tolist())
        assert [value for _, value in entry.top] == pytest.approx(best.values.tolist(), abs=1e-6)


def test_prompt_logprobs_have_no_alternatives_when_none_are_asked_for() -> None:
    (entry,) = prompt_logprobs(torch.zeros(1, 4), [1])
    assert entry.top == () and entry.logprob == pytest.approx(-1.3862944)


def test_prompt_logprobs_raise_when_rows_and_tokens_differ() -> None:
    with pytest.raises(ValueError, match="2 rows of logits for 1 tokens"):
        prompt_logprobs(torch.zeros(2, 4), [1])
