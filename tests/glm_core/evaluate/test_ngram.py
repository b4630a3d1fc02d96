"""The n-gram model against the same formulas written with dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from glm_core.evaluate.ngram import KneserNey

VOCAB, EOS = 9, 8


def _stream(seed: int, documents: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(documents):
        parts += [*np.minimum(rng.geometric(0.4, rng.integers(3, 40)) - 1, EOS - 1), EOS]
    return np.array(parts, dtype=np.uint16)


class _Naive:
    """Modified Kneser-Ney after Chen and Goodman, one n-gram at a time."""

    def __init__(self, tokens: list[int], order: int) -> None:
        tokens = [EOS] * (order - 1) + tokens
        self.order = order
        self.counts: list[Counter[tuple[int, ...]]] = []
        for n in range(1, order + 1):
            grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
            self.counts.append(Counter(grams))
        for n in range(1, order):
            ends = Counter(gram[1:] for gram in self.counts[n])
            self.counts[n - 1] = Counter({gram: ends[gram] for gram in self.counts[n - 1]})
        self.discounts = [self._discounts(counts) for counts in self.counts]
        self.after: list[dict[tuple[int, ...], list[int]]] = []
        for counts in self.counts:
            table: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for gram, count in counts.items():
                table[gram[:-1]].append(count)
            self.after.append(table)

    @staticmethod
    def _discounts(counts: Counter[tuple[int, ...]]) -> list[float]:
        n = [sum(c == k for c in counts.values()) for k in range(5)]
        y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.5
        taken = [0.0]
        for k in (1, 2, 3):
            value = k - (k + 1) * y * n[k + 1] / n[k] if n[k] and n[k + 1] else 0.5
            taken.append(min(max(value, 0.1), k))
        return taken

    def probability(self, history: tuple[int, ...], token: int) -> float:
        return self._mix(history[-(self.order - 1) :], token)

    def _mix(self, history: tuple[int, ...], token: int) -> float:
        lower = self._mix(history[1:], token) if history else 1 / VOCAB
        n = len(history)
        seen = self.after[n].get(history, [])
        total = sum(seen)
        if total == 0:
            return lower
        discounts = self.discounts[n]
        own = self.counts[n].get((*history, token), 0)
        taken = sum(min(discounts[min(c, 3)], c) for c in seen)
        return (own - min(discounts[min(own, 3)], own)) / total + taken / total * lower


@pytest.mark.parametrize("order", [2, 3, 5])
def test_probabilities_equal_the_formulas_written_with_dictionaries(order: int) -> None:
    train, heldout = _stream(0, 30), _stream(1, 4)
    naive = _Naive(train.tolist(), order)
    stream = [EOS] * (order - 1) + heldout.tolist()
    expected = [
        naive.probability(tuple(stream[i - order + 1 : i]), stream[i])
        for i in range(order - 1, len(stream))
    ]
    ours = KneserNey(train, VOCAB, order, EOS).probabilities(heldout)
    # Measured worst error: 4.6e-8 (the tables are float32).
    np.testing.assert_allclose(ours, expected, atol=3e-7, rtol=0)


def test_probabilities_of_all_tokens_sum_to_one_after_any_history() -> None:
    model = KneserNey(_stream(0, 30), VOCAB, 4, EOS)
    for history in ([0, 1, 0], [7, 7, 7], [2], []):
        total = sum(model.probabilities(np.array([*history, t]))[-1] for t in range(VOCAB))
        # Measured worst error: 6e-8.
        assert total == pytest.approx(1.0, abs=1e-6)


def test_nats_leave_out_the_ends_of_documents() -> None:
    model = KneserNey(_stream(0, 30), VOCAB, 3, EOS)
    first, second = np.array([0, 1, 2]), np.array([3, 0])
    probabilities = model.probabilities(np.array([0, 1, 2, EOS, 3, 0]))
    expected = -sum(math.log(probabilities[i]) for i in (0, 1, 2, 4, 5))
    assert model.nats([first, second]) == pytest.approx(expected)


def test_model_raises_when_there_is_nothing_to_count() -> None:
    with pytest.raises(ValueError, match="needs training text, but the training split is empty"):
        KneserNey(np.array([], dtype=np.uint16), VOCAB, 3, EOS)
    with pytest.raises(ValueError, match="order of the n-gram model is 1: it must be at least 2"):
        KneserNey(_stream(0, 1), VOCAB, 1, EOS)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_next_probabilities_are_those_of_a_stream_when_asked_for_every_id(order):
    model = KneserNey(_stream(0, 60), VOCAB, order, EOS)
    text = _stream(1, 3)[:25]
    for length in (0, 1, 2, 7, 24):
        given = text[:length].tolist()
        found = model.next_probabilities(given)
        expected = [model.probabilities(np.array([*given, token]))[-1] for token in range(VOCAB)]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert abs(found.sum() - 1) < 1e-6  # seen: 4e-8, for weights are float32
