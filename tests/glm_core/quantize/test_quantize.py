from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from glm_core.model import Transformer
from glm_core.quantize import RowQuantizedLinear, quantize_, quantize_rows
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
    return {name for name, m in model.named_modules() if isinstance(m, RowQuantizedLinear)}


@pytest.mark.parametrize("family", TINY_FAMILIES)
@pytest.mark.parametrize("bits", [8, 4])
def test_projections_of_the_blocks_are_replaced_when_quantized(family: str, bits: int) -> None:
    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert quantize_(model, bits) is model
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
    quantize_(model, 4)
    with torch.no_grad():
        for name in linears(model):
            layer = model.get_submodule(name)
            assert isinstance(layer, RowQuantizedLinear)
            levels = torch.stack((layer.weight >> 4, (layer.weight << 4) >> 4), -1).flatten(1)
            exact = levels.float() * layer.weight_scale.float()[:, None]
            plain.get_submodule(name).weight.copy_(exact)
        ours, theirs = model.logits(model(IDS)), plain.logits(plain(IDS))
    # worst measured 5.6e-7 of the largest logit
    assert (ours - theirs).abs().max() <= 5e-6 * theirs.abs().max()


def test_named_modules_are_left_when_skipped() -> None:
    model = quantize_(tiny_model("glm-4-9b"), 8, skip=["layers.0", "layers.1.mlp.dense_4h_to_h"])
    left = {f"layers.0.{name}" for name in PROJECTIONS} | {"layers.1.mlp.dense_4h_to_h"}
    assert quantized_names(model) == linears(model) - left


def test_float_weights_are_gone_when_quantized() -> None:
    model = tiny_model("chatglm-6b")
    weights = [weakref.ref(model.get_submodule(name)) for name in sorted(linears(model))]
    quantize_(model, 8)
    assert all(weight() is None for weight in weights)


def test_module_tree_is_built_when_on_meta() -> None:
    source = quantize_(tiny_model("glm-130b"), 4).bfloat16()
    with torch.device("meta"):
        model = Transformer(tiny_config("glm-130b")).bfloat16()
    quantize_(model, 4)
    assert all(value.is_meta for value in model.state_dict().values())
    shapes = {name: (v.shape, v.dtype) for name, v in source.state_dict().items()}
    assert {name: (v.shape, v.dtype) for name, v in model.state_dict().items()} == shapes
    model.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(model.eval()(IDS), source(IDS))


def test_gradient_reaches_the_embedding_when_quantized() -> None:
    model = quantize_(tiny_model("chatglm-6b"), 8)
    model.logits(model(IDS)).square().mean().backward()
    grad = model.word_embeddings.weight.grad
    assert grad is not None and grad.isfinite().all() and grad[IDS[0]].abs().amin() > 0


def test_error_names_the_layer_when_it_cannot_be_quantized() -> None:
    with pytest.raises(ValueError, match=r"skip names modules that the model does not .*layers.9"):
        quantize_(tiny_model("glm-base"), 8, skip=["layers.9"])
    odd = tiny_model("glm-base", ffn_hidden_size=45)
    with pytest.raises(ValueError, match=r"layers.0.mlp.dense_4h_to_h: a matrix with 45 columns"):
        quantize_(odd, 4)
    with pytest.raises(ValueError, match=r"bits is 5: a quantized matrix has 8 or 4 bits"):
        quantize_(tiny_model("glm-base"), 5)
