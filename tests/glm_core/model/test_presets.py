"""Parameter counts against the published ones, built on the meta device."""

import json

import pytest
import torch

from glm_core.model import Transformer, TransformerConfig
from glm_core.model.presets import PRESETS, preset

# Published to the unit.
EXACT = {
    "chatglm-6b": 6_173_286_400,
    "chatglm2-6b": 6_243_584_000,
    "chatglm2-6b-32k": 6_243_584_000,
    "chatglm3-6b": 6_243_584_000,
    "chatglm3-6b-32k": 6_243_584_000,
    "glm-4-9b": 9_399_951_360,
    "glm-4-9b-chat": 9_399_951_360,
    "codegeex4-9b": 9_399_951_360,
    "llama-7b": 6_738_415_616,
    "vicuna-7b": 6_738_415_616,
    "vicuna-7b-v1.5": 6_738_415_616,
    "codegeex-13b": 12_873_943_040,
    "codegeex2-6b": 6_243_584_000,
}
# Published as a name. The furthest from theirs are glm-2b (1.92e9) and GLM-130B, whose published
# shape has 128.7e9.
ROUNDED = {
    "glm-base": 110e6,
    "glm-large": 335e6,
    "glm-410m": 410e6,
    "glm-515m": 515e6,
    "glm-2b": 2e9,
    "glm-10b": 10e9,
    "glm-10b-zh": 10e9,
    "glm-130b": 130e9,
    "chatglm-6b-v0": 6.2e9,
    "glm-4-9b-0414": 9.4e9,
    "glm-4-9b-chat-1m": 9.48e9,
}
TOLERANCE = 0.05
# Published with the count of glm-large, whose blocks they share; their vocabularies are larger.
LARGE = ["glm-roberta-large", "glm-large-zh"]


def parameters(name: str) -> dict[str, int]:
    with torch.device("meta"):
        model = Transformer(preset(name))
    return {key: parameter.numel() for key, parameter in model.named_parameters()}


def count(name: str) -> int:
    return sum(parameters(name).values())


def test_every_preset_has_a_published_count():
    assert set(PRESETS) == set(EXACT) | set(ROUNDED) | set(LARGE)


@pytest.mark.parametrize("name", EXACT)
def test_count_is_exact_when_published_to_the_unit(name):
    assert count(name) == EXACT[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_count_is_near_the_published_name(name):
    assert count(name) == pytest.approx(ROUNDED[name], rel=TOLERANCE)


@pytest.mark.parametrize("name", LARGE)
def test_blocks_are_those_of_glm_large_when_only_the_vocabulary_differs(name):
    def blocks(name):
        return {key: size for key, size in parameters(name).items() if "embeddings" not in key}

    assert blocks(name) == blocks("glm-large")


def test_tables_of_learned_positions_have_one_row_more_than_the_context():
    config = preset("glm-10b")
    assert parameters("glm-10b")["positions.position_embeddings.weight"] == (1024 + 1) * 4096
    assert config.max_position_embeddings == 1024


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_json(name):
    config = preset(name)
    assert TransformerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_preset_is_a_fresh_value_each_time():
    preset("glm-base").num_layers = 1
    assert preset("glm-base").num_layers == 12


def test_unknown_preset_names_the_choices():
    with pytest.raises(ValueError, match="model preset 'glm-5' is unknown: choose one of glm-base"):
        preset("glm-5")
