"""LoRA adapters against the same model with its weights changed by numpy."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from glm_core.checkpoint import CheckpointError
from glm_core.checkpoint.files import write_safetensors
from glm_core.checkpoint.formats import FORMATS
from glm_core.model import Transformer
from glm_core.quantize import QuantizeConfig, quantize_
from glm_core.testing import assert_relative, tiny_model, write_lora
from glm_core.tune.lora import Lora, load_lora, lora_rows

IDS = torch.tensor([[3, 14, 15, 9], [2, 6, 5, 35]])
TOLERANCE = 1e-5
"""Of hidden states, relative; the worst measured was 2.8e-6."""
CHATGLM2 = "transformer.encoder.layers.{}.self_attention.query_key_value"
OUTPUTS = {"q_proj": 32, "k_proj": 16, "v_proj": 16, "o_proj": 32, "gate_up_proj": 88}
"""Rows of each matrix, as transformers keeps them."""


def merged(model: Transformer, additions: dict[str, np.ndarray]) -> Transformer:
    """A copy with `additions` on the weights of our modules."""
    model = deepcopy(model)
    for name, delta in additions.items():
        model.get_submodule(name).weight.data += torch.from_numpy(delta)
    return model


@torch.no_grad()
def hidden(model: Transformer, *adapters: Lora | None) -> torch.Tensor:
    with lora_rows(model, adapters or [None, None]):
        return model(IDS)


def fused(layer: int, pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """What the q, k and v of a layer add to our fused projection, without their scales."""
    parts = []
    for name in ("q_proj", "k_proj", "v_proj"):
        a, b = pairs.get(
            f"model.layers.{layer}.self_attn.{name}",
            (np.zeros((1, 32), np.float32), np.zeros((OUTPUTS[name], 1), np.float32)),
        )
        parts.append(b @ a)
    return np.concatenate(parts)


def test_an_adapter_is_the_merged_weight_when_it_is_chatglm2s(tmp_path) -> None:
    model = tiny_model("chatglm2-6b")
    sizes = {CHATGLM2.format(layer): (4, 32, 64) for layer in range(2)}
    pairs = write_lora(tmp_path, sizes)
    expected = merged(
        model,
        {
            f"layers.{layer}.attention.query_key_value": 6 / 4 * b @ a
            for layer, (a, b) in enumerate(pairs.values())
        },
    )
    lora = load_lora(model, tmp_path)
    error = assert_relative(hidden(model, lora, lora), hidden(expected), TOLERANCE)
    assert error > 0
    assert torch.equal(hidden(model), hidden(deepcopy(model))), "nothing is left behind"


def test_parts_are_put_into_the_fused_projection_when_names_are_those_of_transformers(
    tmp_path,
) -> None:
    model = tiny_model("glm-4-9b")
    sizes = {
        f"model.layers.{layer}.{'mlp' if 'up' in name else 'self_attn'}.{name}": (2, 32, rows)
        for layer in range(2)
        for name, rows in OUTPUTS.items()
        if not (layer == 1 and name == "k_proj")
    }
    pairs = write_lora(tmp_path, sizes, lora_alpha=2)
    additions = {f"layers.{n}.attention.query_key_value": fused(n, pairs) for n in range(2)}
    for n in range(2):
        for ours, theirs in (
            ("attention.dense", "self_attn.o_proj"),
            ("mlp.dense_h_to_4h", "mlp.gate_up_proj"),
        ):
            a, b = pairs[f"model.layers.{n}.{theirs}"]
            additions[f"layers.{n}.{ours}"] = b @ a
    lora = load_lora(model, tmp_path)
    assert_relative(hidden(model, lora, lora), hidden(merged(model, additions)), TOLERANCE)


@pytest.mark.parametrize(
    ("config", "scales"),
    (
        ({}, (6 / 4, 6 / 2)),
        ({"use_rslora": True}, (6 / 2, 6 / math.sqrt(2))),
        ({"alpha_pattern": {"layers.1.self_attention.query_key_value": 8}}, (6 / 4, 8 / 2)),
        ({"alpha_pattern": {r".*\.0\..*": 1}}, (1 / 4, 6 / 2)),
    ),
)
def test_scale_follows_alpha_and_rank_when_modules_have_their_own(
    tmp_path, config: dict[str, Any], scales: tuple[float, float]
) -> None:
    model = tiny_model("chatglm2-6b")
    sizes = {CHATGLM2.format(0): (4, 32, 64), CHATGLM2.format(1): (2, 32, 64)}
    pairs = write_lora(tmp_path, sizes, rank_pattern={CHATGLM2.format(1): 2}, **config)
    additions = {
        f"layers.{layer}.attention.query_key_value": np.float32(scale) * (b @ a)
        for layer, (scale, (a, b)) in enumerate(zip(scales, pairs.values(), strict=True))
    }
    lora = load_lora(model, tmp_path)
    assert_relative(hidden(model, lora, lora), hidden(merged(model, additions)), TOLERANCE)


def test_each_row_has_its_own_adapter_when_they_are_mixed(tmp_path) -> None:
    model = tiny_model("chatglm2-6b")
    loras = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        write_lora(folder, {CHATGLM2.format(seed - 1): (4, 32, 64)}, seed)
        loras.append(load_lora(model, folder))
    alone = [hidden(model, lora, lora) for lora in (*loras, None)]
    for first, one in enumerate((*loras, None)):
        for second, other in enumerate((*loras, None)):
            both = hidden(model, one, other)
            assert_relative(both[0], alone[first][0], TOLERANCE)
            assert_relative(both[1], alone[second][1], TOLERANCE)


def test_an_adapter_is_added_when_the_weights_are_quantized(tmp_path) -> None:
    model = tiny_model("chatglm2-6b", hidden_size=32, ffn_hidden_size=64)
    write_lora(tmp_path, {CHATGLM2.format(0): (4, 32, 64)})
    quantize_(model, QuantizeConfig(bits=8))
    lora = load_lora(model, tmp_path)
    linear, x = model.layers[0].attention.query_key_value, torch.rand(1, 2, 32)
    with torch.no_grad():
        plain = linear(x)
        with lora_rows(model, [lora]):
            changed = linear(x)
    (part,) = lora.parts["layers.0.attention.query_key_value"]
    assert_relative(changed - plain, x @ part.a_RI.T @ part.b_OR.T, 1e-5)


def test_no_table_takes_what_is_not_a_linear_layer_of_a_block() -> None:
    from glm_core.tune.lora import _known_places

    config = tiny_model("chatglm2-6b").config
    tables = list(_known_places(config))
    assert len(tables) == len(FORMATS)
    for places in tables:
        # fewer where matrices are stored as columns: queries, keys and values alone, or none
        assert len({ours for ours, _, _ in places.values()}) in (8, 2, 0)
        assert not any("embed" in name or "norm" in name for name in places)


@pytest.mark.parametrize(
    ("sizes", "config", "message"),
    (
        ({}, {"peft_type": "IA3"}, "does not describe a LoRA adapter"),
        ({}, {"use_dora": True}, "has use_dora = True, which is not served"),
        ({}, {"modules_to_save": ["head"]}, "has modules_to_save"),
        ({}, {}, "it changes nothing"),
        ({"transformer.output_layer": (4, 32, 67)}, {}, "it changes transformer.output_layer"),
        ({CHATGLM2.format(2): (4, 32, 64)}, {}, r"it changes transformer.encoder.layers.2"),
        ({CHATGLM2.format(0): (4, 32, 65)}, {}, r"B \[65, 4\], the model's weight is \[64, 32\]"),
        ({CHATGLM2.format(0): (4, 31, 64)}, {}, r"A \[4, 31\] and B"),
    ),
)
def test_an_adapter_is_refused_when_it_cannot_be_served(
    tmp_path, sizes: dict[str, tuple[int, int, int]], config: dict[str, Any], message: str
) -> None:
    write_lora(tmp_path, sizes, **config)
    with pytest.raises(CheckpointError, match=message):
        load_lora(tiny_model("chatglm2-6b"), tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    (
        ("layer.lora_embedding_A", "is no LoRA of a linear layer"),
        ("layer.lora_A.weight", "holds lora_A of layer alone"),
    ),
)
def test_an_adapter_is_refused_when_a_tensor_is_unknown(tmp_path, name: str, message: str) -> None:
    write_lora(tmp_path, {})
    tensors = {f"base_model.model.{name}": torch.zeros(2, 2)}
    write_safetensors(tmp_path / "adapter_model.safetensors", tensors, {"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        load_lora(tiny_model("chatglm2-6b"), tmp_path)


def test_a_projection_is_left_alone_when_its_heads_are_interleaved(tmp_path) -> None:
    write_lora(tmp_path, {"model.layers.0.self_attn.q_proj": (2, 32, 32)})
    with pytest.raises(CheckpointError, match="it changes model.layers.0.self_attn.q_proj"):
        load_lora(tiny_model("chatglm-6b"), tmp_path)
