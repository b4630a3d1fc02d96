from __future__ import annotations

import math

import pytest

from glm_core.train.schedule import Schedule, learning_rate_factor


def factors(schedule: Schedule, steps: int = 100) -> list[float]:
    return [
        learning_rate_factor(
            schedule, step, max_steps=100, warmup_steps=10, min_ratio=0.1, decay_fraction=0.2
        )
        for step in range(steps)
    ]


@pytest.mark.parametrize("schedule", list(Schedule))
def test_factor_rises_linearly_when_warming_up(schedule: Schedule) -> None:
    assert factors(schedule)[:10] == pytest.approx([0.1 * k for k in range(1, 11)])


def test_factor_follows_half_a_cosine_when_cosine() -> None:
    values = factors(Schedule.cosine)
    assert values[10] == 1.0
    assert values[55] == pytest.approx(0.1 + 0.9 * 0.5)  # half-way between 10 and 100
    assert values[40] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 3)))
    assert values == sorted(values[:10]) + sorted(values[10:], reverse=True)


def test_factor_stays_then_falls_linearly_when_wsd() -> None:
    values = factors(Schedule.wsd)
    assert values[10:81] == [1.0] * 71
    assert values[90] == pytest.approx(0.55) and values[99] == pytest.approx(0.145)


def test_factor_stays_when_constant() -> None:
    assert factors(Schedule.constant)[10:] == [1.0] * 90


@pytest.mark.parametrize("schedule", [Schedule.cosine, Schedule.wsd])
def test_factor_stays_at_minimum_when_past_the_end(schedule: Schedule) -> None:
    assert factors(schedule, 150)[100:] == pytest.approx([0.1] * 50)


def test_factor_is_defined_when_warm_up_is_the_whole_run() -> None:
    factor = learning_rate_factor(
        Schedule.cosine, 5, max_steps=5, warmup_steps=5, min_ratio=0.1, decay_fraction=0.2
    )
    assert factor == 1.0
