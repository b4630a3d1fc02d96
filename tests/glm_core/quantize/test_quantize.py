from __future__ import annotations

import copy
import json
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from glm_core.model import Transformer
from glm_core.quantize import (
    Layout,
    QuantizeConfig,
    QuantizedEmbedding,
    QuantizedLinear,
    pack_,
    quantize_,
    quantize_matrix,
    quantize_rows,
    set_prompt_activation_bits,
)
from glm_core.quantize import weight as weight_module
from glm_core.quantize.weight import has_kernel
from glm_core.testing import TINY_FAMILIES, tiny_config, tiny_model

PROJECTIONS = (
    "attention.query_key_value",
    "attention.dense",
    "mlp.dense_h_to_4h",
    "mlp.dense_4h_to_h",
)
IDS = torch.tensor([[1, 5, 3, 2, 9, 11]])


def linears(model: Transformer) -> set[str]:
    blocks = ["layers.0", "layers.1", *(["top_query.block"] if model.top_query else [])]
    return {f"{block}.{name}" for block in blocks for name in PROJECTIONS}


def quantized_names(model: nn.Module) -> set[str]:
    return {name for name, m in model.named_modules() if isinstance(m, QuantizedLinear)}


@pytest.mark.parametrize("family", TINY_FAMILIES)
@pytest.mark.parametrize("bits", [8, 4])
def test_projections_of_the_blocks_are_replaced_when_quantized(family: str, bits: int) -> None:
    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert quantize_(model, QuantizeConfig(bits=bits)) is model
    assert quantized_names(model) == linears(model)
    state = model.state_dict()
    for name in linears(model):
        levels, scale = quantize_rows(before[f"{name}.weight"], bits)
        assert torch.equal(state[f"{name}.weight"], levels)
        assert torch.equal(state[f"{name}.weight_scale"], scale)
    rest = before.keys() - {f"{name}.weight" for name in linears(model)}
    assert all(torch.equal(state[name], before[name]) for name in rest)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_logits_are_those_of_the_rounded_weights_when_quantized(family: str) -> None:
    """The quantized model computes what a plain model with the rounded weights computes."""
    model, plain = tiny_model(family), tiny_model(family)
    quantize_(model, QuantizeConfig(bits=4))
    with torch.no_grad():
        for name in linears(model):
            layer = model.get_submodule(name)
            assert isinstance(layer, QuantizedLinear)
            packed, scale = layer.matrix().levels, layer.matrix().scale
            levels = torch.stack((packed >> 4, (packed << 4) >> 4), -1).flatten(1)
            exact = levels.float() * scale.float()[:, None]
            plain.get_submodule(name).weight.copy_(exact)
        ours, theirs = model.logits(model(IDS)), plain.logits(plain(IDS))
    # worst measured 2.0e-4 of the largest logit: the kernels round activations to 15 bits
    assert (ours - theirs).abs().max() <= 2e-3 * theirs.abs().max()


def test_named_modules_are_left_when_skipped() -> None:
    skip = ("layers.0", "layers.*.mlp.dense_4h_to_h")
    model = quantize_(tiny_model("glm-4-9b"), QuantizeConfig(bits=8, skip=skip))
    left = {f"layers.0.{name}" for name in PROJECTIONS} | {"layers.1.mlp.dense_4h_to_h"}
    assert quantized_names(model) == linears(model) - left


def test_float_weights_are_gone_when_quantized() -> None:
    model = tiny_model("chatglm-6b")
    weights = [weakref.ref(model.get_submodule(name)) for name in sorted(linears(model))]
    quantize_(model, QuantizeConfig(bits=8))
    assert all(weight() is None for weight in weights)


def test_module_tree_is_built_when_on_meta() -> None:
    source = quantize_(tiny_model("glm-130b"), QuantizeConfig(bits=4)).bfloat16()
    with torch.device("meta"):
        model = Transformer(tiny_config("glm-130b")).bfloat16()
    quantize_(model, QuantizeConfig(bits=4))
    assert all(value.is_meta for value in model.state_dict().values())
    shapes = {name: (v.shape, v.dtype) for name, v in source.state_dict().items()}
    assert {name: (v.shape, v.dtype) for name, v in model.state_dict().items()} == shapes
    model.load_state_dict(source.state_dict(), assign=True)
    pack_(model)
    assert torch.equal(model.eval()(IDS), source(IDS))


def test_gradient_reaches_the_embedding_when_quantized() -> None:
    model = quantize_(tiny_model("chatglm-6b"), QuantizeConfig(bits=8))
    model.logits(model(IDS)).square().mean().backward()
    grad = model.word_embeddings.weight.grad
    assert grad is not None and grad.isfinite().all() and grad[IDS[0]].abs().amin() > 0


def test_error_names_the_layer_when_it_cannot_be_quantized() -> None:
    with pytest.raises(ValueError, match=r"skip names modules that the model does not .*layers.9"):
        quantize_(tiny_model("glm-base"), QuantizeConfig(bits=8, skip=("layers.9", "final_norm")))
    odd = tiny_model("glm-base", ffn_hidden_size=45)
    with pytest.raises(ValueError, match=r"layers.0.mlp.dense_4h_to_h: a matrix with 45 columns"):
        quantize_(odd, QuantizeConfig(bits=4))
    with pytest.raises(ValueError, match=r"bits is 5: a quantized matrix has 8 or 4 bits"):
        quantize_(tiny_model("glm-base"), QuantizeConfig(bits=5))


GROUPED = QuantizeConfig(bits=4, group=32, symmetric=False, embeddings=True, head=True)


@pytest.mark.parametrize("family", ["glm-4-9b", "glm-130b", "glm-base"])
def test_embeddings_and_head_are_quantized_when_asked(family: str) -> None:
    model, plain = tiny_model(family, hidden_size=32), tiny_model(family, hidden_size=32)
    is_tied = plain.output_layer is None
    quantize_(model, replace(GROUPED, group=0, bits=8))
    assert isinstance(model.word_embeddings, QuantizedEmbedding)
    assert isinstance(model.head, QuantizedEmbedding if is_tied else QuantizedLinear)
    with torch.no_grad():
        for name, value in plain.state_dict().items():
            if name in ("word_embeddings.weight", "output_layer.weight") or is_linear(name):
                value.copy_(quantize_matrix(value, Layout(8, 0, False)).dequantize())
        ours, theirs = model.logits(model(IDS)), plain.logits(plain(IDS))
        # as above
        assert (ours - theirs).abs().max() <= 2e-3 * theirs.abs().max()
        labels = IDS.roll(-1, 1)
        loss, count = model.loss(model(IDS), labels)
        assert loss == pytest.approx(plain.loss(plain(IDS), labels)[0].item(), rel=1e-3)
        assert int(count) == 6


def is_linear(name: str) -> bool:
    return name.endswith(".weight") and f".{name.removesuffix('.weight')}".endswith(PROJECTIONS)


def test_head_alone_is_quantized_when_it_is_a_matrix_of_its_own() -> None:
    model = quantize_(tiny_model("glm-4-9b"), QuantizeConfig(bits=8, head=True))
    assert isinstance(model.output_layer, QuantizedLinear)
    assert isinstance(model.word_embeddings, nn.Embedding)
    assert model.dtype == model.compute_dtype == torch.float32


def test_skipped_embedding_is_left_when_the_others_are_quantized() -> None:
    config = replace(GROUPED, bits=8, group=0, skip=("word_embeddings", "layers"))
    model = quantize_(tiny_model("glm-4-9b"), config)
    assert quantized_names(model) == {"output_layer"}
    assert isinstance(model.word_embeddings, nn.Embedding)


def test_copy_is_independent_when_a_quantized_model_is_copied() -> None:
    model = quantize_(tiny_model("chatglm-6b"), QuantizeConfig(bits=8))
    copied = copy.deepcopy(model)
    expected = copied(IDS)
    for buffer in model.buffers():
        buffer.zero_()
    assert torch.equal(copied(IDS), expected) and not torch.equal(model(IDS), expected)


def test_config_survives_json_and_names_what_is_wrong() -> None:
    config = replace(GROUPED, skip=("layers.0",))
    assert QuantizeConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    for values, message in (
        ({"bits": 4, "groups": 32}, "'groups' is unknown"),
        ({"group": 32}, "'bits' is missing"),
        ({"bits": 4, "symmetric": 1}, "symmetric is 1: that is of the wrong kind"),
        ({"bits": 4, "group": 48}, "group is 48: it can be 32, 64 or 128 columns, or 0"),
        ({"bits": 3}, "bits is 3: a quantized matrix has 8 or 4 bits"),
    ):
        with pytest.raises(ValueError, match=message):
            QuantizeConfig.from_dict(values)
    with pytest.raises(ValueError, match="skip is 'layers.0': it must be a tuple"):
        QuantizeConfig(bits=4, skip="layers.0")


def test_error_names_layer_and_row_when_a_weight_is_nan() -> None:
    model = tiny_model("glm-base", ffn_hidden_size=64)
    with torch.no_grad():
        model.layers[1].attention.dense.weight[7, 3] = torch.inf
    for group in (0, 32):
        with pytest.raises(ValueError, match=r"layers.1.attention.dense: .* first in row 7"):
            quantize_(copy.deepcopy(model), QuantizeConfig(bits=8, group=group))


def test_error_names_the_layer_when_the_group_does_not_divide_its_columns() -> None:
    odd = tiny_model("glm-base", ffn_hidden_size=48)
    with pytest.raises(ValueError, match=r"layers.0.mlp.dense_4h_to_h: a matrix with 48 columns"):
        quantize_(odd, QuantizeConfig(bits=4, group=32))


@pytest.mark.skipif(not has_kernel(torch.device("cpu")), reason="the kernels are not compiled")
@pytest.mark.parametrize(("tokens", "expected"), [(1, 15), (31, 15), (32, 8), (70, 8)])
def test_prompts_alone_have_fewer_activation_bits_when_set(
    tokens: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = quantize_(tiny_model("glm-4-9b"), QuantizeConfig(bits=4))
    assert set_prompt_activation_bits(model, 8) is model
    seen: list[int] = []
    real = weight_module.linear_weight_only

    def spy(*arguments: torch.Tensor, activation_bits: int) -> torch.Tensor:
        seen.append(activation_bits)
        return real(*arguments, activation_bits=activation_bits)

    monkeypatch.setattr(weight_module, "linear_weight_only", spy)
    model.layers[0].mlp(torch.randn(1, tokens, model.config.hidden_size))
    assert seen == [expected] * 2
    set_prompt_activation_bits(model, 15)
    model.layers[0].mlp(torch.randn(1, tokens, model.config.hidden_size))
    assert seen[2:] == [15] * 2


def test_error_names_the_rule_when_activation_bits_do_not_fit() -> None:
    with pytest.raises(ValueError, match="prompt_activation_bits is 7: it can be 15"):
        set_prompt_activation_bits(tiny_model("glm-4-9b"), 7)
    with pytest.raises(ValueError, match="is 8 .*, but no matrix of the model"):
        set_prompt_activation_bits(tiny_model("glm-4-9b"), 8)
