import pytest

from glm_core.data.documents import HELDOUT, TRAIN, share_of, split_of


def test_split_is_fixed_when_the_name_is():
    # the shares are sha256 of the names, so other implementations can reproduce them
    assert share_of("site-packages/einops/einops.py") == pytest.approx(0.4202313518, abs=1e-9)
    assert split_of("a", 0.0) == TRAIN
    assert split_of("a", 1.0) == HELDOUT


def test_share_of_names_is_the_fraction_when_there_are_many():
    held = sum(split_of(f"module_{i}.py", 0.1) == HELDOUT for i in range(5000))
    assert 420 < held < 580


def test_held_out_names_stay_held_out_when_the_fraction_grows():
    names = [f"m{i}" for i in range(1000)]
    small = {name for name in names if split_of(name, 0.05) == HELDOUT}
    large = {name for name in names if split_of(name, 0.2) == HELDOUT}
    assert small < large
