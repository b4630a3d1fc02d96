"""Limits that make no sense are refused with the reason."""

import pytest

from glm_core.agent.executor import ExecutorLimits


def test_limits_are_accepted_when_nothing_is_given():
    assert ExecutorLimits().seconds(None) == ExecutorLimits().wall_s


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"wall_s": 0.0}, r"wall_s=0.0: .* must be above zero"),
        ({"memory_bytes": 1000}, r"memory_bytes=1000: .* must be at least 268435456"),
        ({"processes": 3}, r"processes=3: .* must be at least 16"),
        ({"output_chars": -1}, r"output_chars=-1: .* must be above zero"),
        ({"images": -1}, r"images=-1: .* must be above zero"),
        ({"wall_s": float("nan")}, r"wall_s=nan: .* must be above zero"),
        ({"disk_bytes": 1 << 20, "file_bytes": 1 << 21}, "must fit into the work folder"),
    ],
)
def test_limit_is_refused_when_no_kernel_could_live_with_it(setting, message):
    with pytest.raises(ValueError, match=message):
        ExecutorLimits(**setting)


def test_pictures_may_be_none_when_nobody_can_see_them():
    assert ExecutorLimits(images=0).images == 0


def test_run_gets_no_more_than_the_wall_time_when_it_asks_for_more():
    limits = ExecutorLimits(wall_s=5.0)
    assert (limits.seconds(3.0), limits.seconds(50.0)) == (3.0, 5.0)
