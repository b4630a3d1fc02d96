from __future__ import annotations

import argparse
import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegeex.fim.split import MOST_BLOCK, Kind, cut, draw_kind

SOURCE = inspect.getsource(argparse.ArgumentParser)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("ab:\n \t日"), max_size=200),
    kind=st.sampled_from(Kind),
    seed=st.integers(0, 2**32),
)
def test_parts_are_the_text_when_joined(text, kind, seed):
    assert "".join(cut(text, kind, np.random.default_rng(seed))) == text


@pytest.mark.parametrize("seed", range(30))
def test_hole_is_the_rest_of_a_line_when_a_line_is_cut(seed):
    parts = cut(SOURCE, Kind.line, np.random.default_rng(seed))
    assert "\n" not in parts.middle
    line_start = parts.prefix.rpartition("\n")[2]
    assert (line_start + parts.middle + parts.suffix.partition("\n")[0]).strip()


@pytest.mark.parametrize("seed", range(30))
def test_hole_ends_with_a_line_when_lines_are_cut(seed):
    parts = cut(SOURCE, Kind.lines, np.random.default_rng(seed))
    assert parts.suffix == "" or parts.suffix.startswith("\n")
    assert parts.middle.count("\n") <= 8


def test_hole_is_all_that_is_indented_when_a_block_is_cut():
    parts = [cut(SOURCE, Kind.block, np.random.default_rng(seed)) for seed in range(60)]
    whole = [
        one for one in parts if one.middle.startswith("\n") and one.prefix.rstrip().endswith(":")
    ]
    assert len(whole) > 15
    for one in whole:
        header = one.prefix.rpartition("\n")[2]
        indent = len(header) - len(header.lstrip())
        lines = [line for line in one.middle.split("\n") if line.strip()]
        assert len(lines) <= MOST_BLOCK + 1
        assert all(len(line) - len(line.lstrip()) > indent for line in lines)
        following = next(line for line in (one.suffix + "\nx").split("\n") if line.strip())
        assert len(following) - len(following.lstrip()) <= indent


def test_kinds_come_as_often_as_their_weights_say_when_drawn():
    rng = np.random.default_rng(0)
    weights = {Kind.random: 1.0, Kind.line: 3.0, Kind.lines: 0.0}
    drawn = [draw_kind(weights, rng) for _ in range(4000)]
    assert set(drawn) == {Kind.random, Kind.line}
    assert abs(drawn.count(Kind.line) / 4000 - 0.75) < 0.03  # 4 standard deviations
