import numpy as np
import pytest
from scipy import stats

from glm_core.data.spans import (
    MAX_SPAN_LENGTH,
    draw_span_lengths,
    place_in_documents,
    place_spans,
    span_length_distribution,
)

EOS = 99


@pytest.mark.parametrize("rate", [0.5, 3.0, 10.0])
def test_distribution_is_scipys_poisson_when_renormalised(rate):
    weights = stats.poisson.pmf(np.arange(1, MAX_SPAN_LENGTH + 1), rate)
    expected = np.cumsum(weights / weights.sum())
    # measured worst difference 6e-16
    np.testing.assert_allclose(span_length_distribution(rate), expected, atol=1e-14)


def test_drawn_lengths_follow_poisson_when_many_are_drawn():
    lengths = draw_span_lengths(200_000, 3.0, np.random.default_rng(0))
    observed = np.bincount(lengths, minlength=13)[1:13]
    weights = stats.poisson.pmf(np.arange(1, MAX_SPAN_LENGTH + 1), 3.0)
    expected = (weights / weights.sum())[:12] * len(lengths)
    assert lengths.min() == 1
    # the rest beyond 12 is 2e-5 of the mass; p was 0.5 with this seed
    scaled = expected * observed.sum() / expected.sum()
    assert stats.chisquare(observed, scaled).pvalue > 0.001


def test_enough_lengths_are_drawn_when_all_are_one():
    lengths = draw_span_lengths(50, 1e-6, np.random.default_rng(0))
    assert lengths.sum() >= 50
    assert len(draw_span_lengths(0, 3.0, np.random.default_rng(0))) == 1


def test_spans_keep_a_gap_when_placed():
    rng = np.random.default_rng(1)
    for _ in range(300):
        lengths = rng.integers(1, 5, int(rng.integers(1, 6)))
        room = int(lengths.sum() + len(lengths) - 1 + rng.integers(0, 10))
        starts = place_spans(lengths, 7, room, rng)
        ends = starts + lengths
        assert starts[0] >= 7
        assert ends[-1] <= 7 + room
        assert (starts[1:] > ends[:-1]).all()


def test_every_place_is_reached_when_one_span_is_placed_often():
    rng = np.random.default_rng(2)
    starts = np.concatenate([place_spans(np.array([3]), 5, 10, rng) for _ in range(4000)])
    counts = np.bincount(starts)[5:]
    assert len(counts) == 8
    assert stats.chisquare(counts).pvalue > 0.001


def test_no_span_touches_an_end_when_a_text_has_several_documents():
    rng = np.random.default_rng(3)
    for _ in range(200):
        text = rng.integers(0, 50, 120)
        text[rng.integers(1, 120, 4)] = EOS
        lengths = draw_span_lengths(18, 3.0, rng)[:6]
        starts, taken = place_in_documents(text, lengths, EOS, 0.15, rng)
        assert len(starts) >= 1
        assert (starts[1:] > (starts + taken)[:-1]).all()
        covered = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, taken, strict=True)])
        assert EOS not in text[covered]
        assert covered.min() >= 1
        assert covered.max() < len(text) - 1


def test_small_documents_take_their_share_when_a_long_one_is_beside_them():
    rng = np.random.default_rng(4)
    text = np.ones(200, dtype=np.int64)
    text[40] = EOS
    starts, taken = place_in_documents(text, np.ones(30, dtype=np.int64), EOS, 0.15, rng)
    in_first = taken[starts < 40].sum()
    assert in_first == int(0.15 * 39)
    assert taken.sum() == 30


@pytest.mark.parametrize("text", [[0, 5], [0, EOS], [0, EOS, EOS], [0, 5, EOS], [0, 5, 6]])
def test_one_span_remains_when_the_text_is_tiny(text):
    starts, taken = place_in_documents(
        np.array(text), np.array([9]), EOS, 0.15, np.random.default_rng(0)
    )
    assert len(starts) == 1
    assert starts[0] >= 1
    assert starts[0] + taken[0] <= len(text)
