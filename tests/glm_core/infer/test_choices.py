"""Seeds of several answers to one request, and their order."""

from __future__ import annotations

import pytest

from glm_core.infer.choices import best_first, seed_of_choice
from glm_core.infer.sampling import SamplingConfig


@pytest.mark.parametrize("seed", [0, 7, -(2**63), 2**63 - 1])
def test_seeds_are_the_same_again_and_the_first_is_the_requests(seed: int) -> None:
    seeds = [seed_of_choice(seed, index) for index in range(50)]
    assert seeds == [seed_of_choice(seed, index) for index in range(50)]
    assert seeds[0] == seed
    for one in seeds:
        SamplingConfig(seed=one)  # fits


def test_seeds_do_not_meet_when_requests_have_neighbouring_seeds() -> None:
    seeds = [seed_of_choice(seed, index) for seed in range(20) for index in range(20)]
    assert len(set(seeds)) == 400


def test_best_first_keeps_the_order_of_equals() -> None:
    assert best_first([-2.0, -0.5, -1.0, -0.5]) == [1, 3, 2, 0]
