"""Each sampling rule against transformers' logits processors, and the draw against its odds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as hf

from glm_core.infer.sampling_rules import (
    Scores,
    as_ids,
    candidates,
    draw,
    floor_of_top_p,
    penalize_repetition,
    penalize_use,
)

NO_IDS = torch.zeros(1, 1, dtype=torch.long)


def _logits(row: int = 0, vocab: int = 50) -> torch.Tensor:
    return torch.randn(4, vocab, generator=torch.Generator().manual_seed(1))[row] * 3


def _distribution(logits_V: torch.Tensor, temperature: float = 1.0, **rules: float) -> Scores:
    """Probabilities after the rules, [V]."""
    ids, weights = candidates(logits_V.numpy(), temperature, **rules)  # type: ignore[arg-type]
    probabilities = np.zeros(len(logits_V), dtype=np.float32)
    probabilities[slice(None) if ids is None else ids] = weights / weights.sum()
    return probabilities


def _assert_equal(found: Scores, expected_1V: torch.Tensor) -> None:
    """The same tokens, and the same probabilities up to rounding."""
    expected = expected_1V[0].softmax(-1).numpy()
    assert np.array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=2e-6)  # measured 8e-7


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("k", [1, 3, 50, 99])
def test_top_k_equals_transformers(k: int, row: int) -> None:
    expected = hf.TopKLogitsWarper(k)(NO_IDS, _logits(row)[None])
    _assert_equal(_distribution(_logits(row), top_k=k), expected)


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("p", [1e-6, 0.3, 0.9, 0.999])
def test_top_p_equals_transformers(p: float, row: int) -> None:
    expected = hf.TopPLogitsWarper(p)(NO_IDS, _logits(row)[None])
    _assert_equal(_distribution(_logits(row), top_p=p), expected)


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("p", [0.01, 0.2, 1.0])
def test_min_p_equals_transformers(p: float, row: int) -> None:
    expected = hf.MinPLogitsWarper(p)(NO_IDS, _logits(row)[None])
    _assert_equal(_distribution(_logits(row), min_p=p), expected)


@pytest.mark.parametrize("row", range(4))
def test_rules_together_equal_transformers_in_its_order(row: int) -> None:
    expected = _logits(row)[None]
    for rule in (
        hf.TemperatureLogitsWarper(0.7),
        hf.TopKLogitsWarper(20),
        hf.TopPLogitsWarper(0.9),
        hf.MinPLogitsWarper(0.05),
    ):
        expected = rule(NO_IDS, expected)
    found = _distribution(_logits(row), 0.7, top_k=20, top_p=0.9, min_p=0.05)
    _assert_equal(found, expected)


@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.9, 0.99999])
@pytest.mark.parametrize("sharpness", [0.01, 1.0, 8.0])
def test_floor_of_top_p_keeps_the_fewest_tokens_when_the_vocabulary_is_large(
    p: float, sharpness: float
) -> None:
    rng = np.random.default_rng(0)
    weights = np.exp(sharpness * rng.standard_normal(5000)).astype(np.float32)
    kept = weights[weights >= floor_of_top_p(weights, p)].astype(np.float64)
    total = weights.sum(dtype=np.float64)
    assert kept.sum() >= p * total * (1 - 1e-12)
    assert kept.sum() - kept.min() < p * total


def test_tokens_as_probable_as_the_last_one_are_kept_too() -> None:
    tied = torch.tensor([1.0, 3.0, 1.0, 1.0, 0.0])
    assert (_distribution(tied, top_k=2) > 0).tolist() == [True, True, True, True, False]
    assert (_distribution(tied, top_p=0.8) > 0).tolist() == [True, True, True, True, False]


def test_excluded_tokens_stay_excluded_when_top_k_is_larger_than_what_is_left() -> None:
    logits = torch.tensor([1.0, -torch.inf, 2.0, -torch.inf])
    found = _distribution(logits, top_k=3, top_p=0.999, min_p=1e-9)
    assert (found > 0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("temperature", [1e-45, 1e-300])
def test_best_token_is_certain_when_the_temperature_is_next_to_zero(temperature: float) -> None:
    found = _distribution(_logits(), temperature)
    assert found[_logits().argmax()] == 1.0 and found.sum() == 1.0


@pytest.mark.parametrize("penalty", [0.5, 1.3])
@pytest.mark.parametrize("seen", [[1, 1, 7], [0, 49, 7], [3, 2, 1], [5, 5, 5]])
def test_repetition_penalty_equals_transformers_when_tokens_repeat(
    penalty: float, seen: list[int]
) -> None:
    expected = hf.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), _logits()[None])
    scores = _logits().numpy().copy()
    penalize_repetition(scores, as_ids(seen), penalty)
    assert np.array_equal(scores, expected[0].numpy())


@pytest.mark.parametrize(("presence", "frequency"), [(0.5, 0.0), (0.0, 0.3), (-2.0, 1.5)])
def test_penalties_of_use_equal_the_formula(presence: float, frequency: float) -> None:
    used = [3, 7, 3, 3, 0]
    scores = _logits().numpy().copy()
    penalize_use(scores, as_ids(used), presence, frequency)
    for token, before in enumerate(_logits().tolist()):
        count = used.count(token)
        expected = before - count * frequency - (count > 0) * presence
        assert scores[token] == pytest.approx(expected, abs=1e-6)


def test_draw_follows_the_distribution_and_skips_impossible_tokens() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(6)
    for _ in range(4000):
        counts[draw(probabilities.numpy(), generator)] += 1
    # Measured largest deviation 0.006; four standard deviations of 4000 draws are 0.032.
    torch.testing.assert_close(counts / 4000, probabilities, atol=0.032, rtol=0)
    assert counts[probabilities == 0].sum() == 0


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1.0])
def test_draw_takes_the_only_possible_token(
    uniform: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.tensor(uniform, dtype=torch.float64))
    for place in range(3):
        weights = np.zeros(3, dtype=np.float32)
        weights[place] = 1.0
        assert draw(weights, torch.Generator()) == place


def test_ids_are_not_copied_when_they_stand_in_an_array() -> None:
    from array import array

    ids = array("q", [5, 6])
    view = as_ids(ids)
    ids[0] = 9
    assert view.tolist() == [9, 6]


@pytest.mark.parametrize("temperature", [1e39, 1e300])
def test_every_token_is_as_probable_when_the_temperature_is_huge(temperature: float) -> None:
    scores_V = np.array([0.0, 5.0, -np.inf, 5.5], dtype=np.float32)
    ids, weights = candidates(scores_V, temperature)
    assert ids is None and weights.tolist() == [1.0, 1.0, 0.0, 1.0]
