"""What counts as met."""

from __future__ import annotations

import pytest

from glm_core.bench.kernels.goal import READ_BANDWIDTH, Goal


@pytest.mark.parametrize(
    ("goal", "value", "text", "verdict"),
    [
        (Goal(0.88), 0.91, ">= 0.88x", "met"),
        (Goal(0.88), 0.88, ">= 0.88x", "met"),
        (Goal(0.88), 0.66, ">= 0.88x", "missed by 25 %"),
        (Goal(1.0), 0.996, ">= 1x", "met"),  # printed as 1.00x
        (Goal(1.0), 0.99, ">= 1x", "missed by 1 %"),
        (Goal(1.3), 0.13, ">= 1.3x", "missed by 90 %"),
        (Goal(4.2, "GB", at_most=True), 3.9, "<= 4.2 GB", "met"),
        (Goal(4.2, "GB", at_most=True), 4.24, "<= 4.2 GB", "missed by 0.95 %"),
        (Goal(100.0, "MiB", at_most=True), 350.0, "<= 100 MiB", "missed by 250 %"),
    ],
)
def test_verdict_says_by_how_much_when_a_goal_is_missed(goal, value, text, verdict):
    assert str(goal) == text
    assert goal.verdict(value) == verdict


def test_goals_are_those_of_the_issue():
    assert str(READ_BANDWIDTH["cpu"]) == ">= 0.88x" and str(READ_BANDWIDTH["cuda"]) == ">= 0.8x"
