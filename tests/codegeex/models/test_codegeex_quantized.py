"""CodeGeeX-13B in 8 and 4 bits against rows quantized here by hand, in the released layout.

The original quantizes queries, keys, values, the output projection and both projections of the MLP
in all forty blocks, the top-query layer included; embeddings, head, norms and biases stay.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from glm_core.checkpoint import load_model
from glm_core.checkpoint.convert import convert
from glm_core.quantize import QuantizedLinear, dequantize_rows, quantize_rows
from glm_core.quantize.weight import QuantizedWeight
from glm_core.testing import assert_relative

from .codegeex_oracle import logits
from .released_folders import write_codegeex_13b
from .rows_by_hand import in_bytes, levels_of

HEADS, BITS = 8, (8, 4)
TEXT = "def add(a, b):\n    return a + b\n"
MATRICES = ("query", "key", "value", "dense", "dense_h_to_4h", "dense_4h_to_h")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The released folder in half precision, and its state dict."""
    folder = tmp_path_factory.mktemp("quantized") / "codegeex-13b"
    state = write_codegeex_13b(folder)
    for tensor in tensors_of(state):
        tensor.copy_(tensor.half())
    halves = as_half(state)
    torch.save({"module": halves}, folder / "codegeex_13b.pt")
    return folder, halves


def tensors_of(value):
    if isinstance(value, dict):
        for child in value.values():
            yield from tensors_of(child)
    else:
        yield value


def as_half(value):
    if isinstance(value, dict):
        return {key: as_half(child) for key, child in value.items()}
    return value.half()


def rounded(state, bits):
    """The state dict with every matrix of the blocks quantized and computed back, in fp32."""
    weights = {}
    for name, tensor in state["language_model"]["transformer"].items():
        weights[name] = tensor.float()
        if name.endswith(".weight") and name.split(".")[-2] in MATRICES:
            levels, scale = levels_of(tensor.numpy(), bits)
            weights[name] = torch.from_numpy(levels * scale[:, None].astype(np.float32))
    model = state["language_model"]
    others = {
        key: {name: {"weight": table["weight"].float()} for name, table in model[key].items()}
        for key in ("embedding", "topQueryEmbedding")
    }
    return {"language_model": {"transformer": weights} | others}


@pytest.mark.parametrize("bits", BITS)
def test_every_matrix_of_every_block_is_quantized_and_nothing_else(folder, bits):
    model, _ = load_model(folder[0], quantize=f"int{bits}", dtype="float16")
    quantized = {n for n, m in model.named_modules() if isinstance(m, QuantizedWeight)}
    leaves = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h")
    blocks = ("layers.0", "layers.1", "layers.2", "top_query.block")
    assert quantized == {f"{b}.{leaf}" for b in blocks for leaf in (*leaves, "mlp.dense_4h_to_h")}
    assert all(model.get_submodule(name).bits == bits for name in quantized)
    kept = {name: p.dtype for name, p in model.named_parameters()}
    assert set(kept.values()) == {torch.float16}
    assert "top_query.block.attention.query_key_value.bias" in kept
    assert "word_embeddings.weight" in kept and model.head is model.word_embeddings


@pytest.mark.parametrize("bits", BITS)
def test_rows_are_the_originals_when_written_in_the_released_layout(folder, tmp_path, bits):
    source, state = folder
    convert(source, tmp_path / "rows", "codegeex-13b", bits=bits)
    stored = load_file(tmp_path / "rows" / "mp_rank_00_model_states.safetensors")
    stem = "module.language_model.transformer"
    count = 0
    for name, tensor in state["language_model"]["transformer"].items():
        found = stored[f"{stem}.{name}"]
        if name.endswith(".weight") and name.split(".")[-2] in MATRICES:
            levels, scale = levels_of(tensor.numpy(), bits)
            assert np.array_equal(found.numpy(), in_bytes(levels, bits)), name
            assert np.array_equal(stored[f"{stem}.{name}_scale"].numpy(), scale), name
            count += 1
        else:
            assert torch.equal(found, tensor) and f"{stem}.{name}_scale" not in stored
    assert count == 6 * 4  # three layers and the top-query layer


@pytest.mark.parametrize("bits", BITS)
def test_logits_are_those_of_the_rounded_weights_when_quantized(folder, bits):
    source, state = folder
    model, tokenizer = load_model(source, quantize=f"int{bits}", dtype="float32")
    ids = tokenizer.encode(TEXT)
    with torch.no_grad():
        found = model.logits(model(torch.tensor([ids])))[0]
    # Worst measured 6.9e-5: the compiled products round their inputs to 15 bits.
    assert_relative(found, logits(rounded(state, bits), ids, HEADS), 3e-4, f"int{bits}")
    plain = logits(state, ids, HEADS)
    worst = {8: 0.05, 4: 0.6}[bits]
    # Measured 0.011 in 8 bits, 0.19 in 4: random weights have no structure to forgive rounding.
    error = float((found - plain).norm() / plain.norm())
    assert 1e-4 < error < worst


@pytest.mark.parametrize("bits", BITS)
def test_weights_come_back_within_half_a_level_when_quantized(bits):
    weight = torch.randn(64, 96).half()
    levels, scale = quantize_rows(weight, bits)
    back = dequantize_rows(levels, scale, bits, torch.float32)
    top = 2 ** (bits - 1) - 1
    # half a level, and what rounding ratio and scale to fp16 adds
    bound = scale.float()[:, None] * (0.5 + top * 2.0**-10)
    assert bool(((back - weight.float()).abs() <= bound).all())
    again, same = quantize_rows(back.half(), bits)
    moved = (dequantize_rows(again, same, bits, torch.float32) - back).abs()
    assert bool((moved <= scale.float()[:, None] * top * 2.0**-9).all())


def test_int4_holds_negative_levels_beside_positive_ones():
    """The original's INT4 ended in a NameError, and OneFlow's left the sign in its neighbour."""
    pairs = [(a, b) for a in range(-7, 8) for b in range(-7, 8)]
    weight = torch.tensor([[*pair, 7.0, -7.0] for pair in pairs], dtype=torch.float16)
    levels, scale = quantize_rows(weight, 4)
    assert levels.dtype == torch.int8 and levels.shape == (len(pairs), 2)
    assert torch.equal(dequantize_rows(levels, scale, 4), weight)
    assert np.array_equal(levels.numpy(), in_bytes(weight.numpy().astype(np.int8), 4))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_stored_rows_are_computed_with_as_they_are_when_loaded(folder, tmp_path, bits, ranks):
    source, state = folder
    convert(source, tmp_path / "rows", "codegeex-13b", bits=bits, ranks=ranks)
    model, tokenizer = load_model(tmp_path / "rows", dtype="float32")
    top = model.top_query.block.attention.query_key_value
    assert isinstance(top, QuantizedLinear) and top.bits == bits
    ids = tokenizer.encode(TEXT)
    numbers, _ = load_model(tmp_path / "rows", dtype="float32", quantize="none")
    with torch.no_grad():
        found, same = (each.logits(each(torch.tensor([ids])))[0] for each in (model, numbers))
    assert_relative(found, same, 3e-4, f"int{bits}, {ranks} ranks")
    if ranks == 1:  # two have quantized their shares of the columns each
        assert_relative(found, logits(rounded(state, bits), ids, HEADS), 3e-4, f"int{bits} stored")
