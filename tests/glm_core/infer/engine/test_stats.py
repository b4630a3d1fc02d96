"""Histograms and rates."""

from __future__ import annotations

from glm_core.infer.engine.stats import SECONDS, Histogram, Rate


def test_buckets_count_all_that_is_at_most_their_bound() -> None:
    histogram = Histogram()
    for seconds in (0.0005, 0.001, 0.0011, 7.0, 100.0):
        histogram.observe(seconds)
    values = histogram.values()
    assert values.buckets[:2] == ((0.001, 2), (0.002, 3))
    assert dict(values.buckets)[5.0] == 3 and dict(values.buckets)[10.0] == 4
    assert values.buckets[-1] == (float("inf"), 5) and len(values.buckets) == len(SECONDS) + 1
    assert values.count == 5 and abs(values.sum - 107.0026) < 1e-9


def test_rate_is_the_mean_of_the_last_ten_seconds() -> None:
    rate = Rate()
    assert rate.per_second(50.0) == 0.0
    for tenth in range(200):  # ten a second for twenty seconds
        rate.add(1, 100 + tenth / 10)
    assert abs(rate.per_second(119.9) - 10) < 0.5
    assert rate.per_second(140.0) == 0.0


def test_rate_of_the_first_second_is_not_exaggerated() -> None:
    rate = Rate()
    rate.add(5, 100.0)
    assert rate.per_second(100.01) == 5.0
