from __future__ import annotations

import math
import re

import pytest

from glm_core.demo.curve import loss_curve, smooth, ticks


def test_path_stays_inside_the_picture_when_drawn():
    svg = loss_curve([1, 2, 3, 4], [9.0, 4.0, 3.5, 3.4], "loss")
    for path in re.findall(r' d="M([^"]+)"', svg):
        points = [tuple(map(float, pair.split())) for pair in path.split("L")]
        assert len(points) == 4
        assert all(0 <= x <= 720 and 0 <= y <= 280 for x, y in points)
        assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_higher_loss_is_drawn_higher_when_compared():
    svg = loss_curve([0, 1], [2.0, 1.0], "loss")
    raw = re.search(r'class="raw" d="M\S+ (\S+)L\S+ (\S+)"', svg)
    assert float(raw[1]) < float(raw[2])  # SVG counts downwards


def test_title_is_escaped_when_it_looks_like_html():
    assert "<b>" not in loss_curve([0, 1], [2.0, 1.0], "<b>")


def test_bad_values_are_left_out_when_not_finite():
    svg = loss_curve([0, 1, 2], [2.0, math.nan, 1.0], "loss")
    assert "nan" not in svg


def test_constant_loss_is_drawn_when_nothing_changes():
    assert "nan" not in loss_curve([0, 1], [2.0, 2.0], "loss")


def test_curve_is_refused_when_there_is_one_point():
    with pytest.raises(ValueError, match="at least two finite losses, got 1"):
        loss_curve([0, 1], [1.0, math.inf], "loss")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (1.9, 3.1, [2.0, 2.5, 3.0]), (3, 3, [3])],
)
def test_ticks_are_round_when_between_any_limits(low, high, expected):
    assert ticks(low, high, 5) == pytest.approx(expected)


def test_average_equals_the_values_when_they_are_constant():
    assert smooth([3.0] * 50) == pytest.approx([3.0] * 50)


def test_average_follows_the_definition_when_it_spans_two_values():
    # span * n = 2: weights 1, 1/2, 1/4, ... backwards in time, normalised.
    values = [4.0, 2.0, 1.0, 0.0]
    expected = [4.0, (2 + 4 / 2) / 1.5, (1 + 2 / 2 + 4 / 4) / 1.75, (1 / 2 + 2 / 4 + 4 / 8) / 1.875]
    assert smooth(values, span=0.5) == pytest.approx(expected)
