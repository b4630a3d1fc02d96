"""Parameter counts against the published ones, built on the meta device."""

import pytest
import torch

from glm_core.model import Transformer
from glm_core.model.presets import PRESETS, preset

# Exact where the publisher's own count is known to the unit, otherwise the rounded name.
EXACT = {
    "chatglm-6b": 6_173_286_400,
    "chatglm2-6b": 6_243_584_000,
    "chatglm3-6b": 6_243_584_000,
    "glm-4-9b": 9_399_951_360,
    "llama-7b": 6_738_415_616,
}
ROUNDED = {
    "glm-base": 110e6,
    "glm-large": 335e6,
    "glm-410m": 410e6,
    "glm-515m": 515e6,
    "glm-roberta-large": 355e6,
    "glm-2b": 1.9e9,
    "glm-10b": 9.9e9,
    "glm-large-zh": 355e6,
    "glm-10b-zh": 9.9e9,
    "glm-130b": 129e9,
    "chatglm-6b-v0": 6.25e9,
    "glm-4-9b-0414": 9.4e9,
}


def count(name: str) -> int:
    with torch.device("meta"):
        model = Transformer(preset(name))
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_preset_has_a_published_count():
    assert set(PRESETS) == set(EXACT) | set(ROUNDED)


@pytest.mark.parametrize("name", EXACT)
def test_count_is_exact_when_published_to_the_unit(name):
    assert count(name) == EXACT[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_count_is_within_one_percent_when_published_rounded(name):
    assert count(name) == pytest.approx(ROUNDED[name], rel=0.01)


def test_glm_130b_is_within_one_percent_of_its_name():
    assert count("glm-130b") == pytest.approx(130e9, rel=0.01)


def test_unknown_preset_names_the_choices():
    with pytest.raises(ValueError, match="model preset 'glm-5' is unknown: choose one of glm-base"):
        preset("glm-5")
