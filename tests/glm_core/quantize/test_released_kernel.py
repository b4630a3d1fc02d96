"""INT4 rows as released files hold them run on the compiled kernels, prompt and decoding.

The files are written by hand (checkpoint/released_files.py), their rows quantized by a copy of what
the original code does (released_layout.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from glm_core.checkpoint.loading import load_model
from glm_core.checkpoint.released import open_checkpoint
from glm_core.infer.fast_decode import FastDecoder, fast_decoder
from glm_core.infer.kv_cache import KVCache
from glm_core.model import Transformer
from glm_core.quantize import Layout, QuantizedLinear
from glm_core.testing import tiny_model
from glm_core.tokenizer import ByteBPETokenizer
from glm_kernels import dispatch
from glm_kernels.cpu import library
from glm_kernels.cpu.weight_only import linear_compiled

from ..checkpoint import released_files as files
from ..checkpoint.formats.test_released_layouts import CHATGLM_CONFIG
from . import released_layout as oracle

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason="no compiled kernels")

LAYERS, HIDDEN = 2, 64
SIZES = {"num_layers": LAYERS, "vocab_size": 300, "hidden_size": HIDDEN, "head_dim": 16}
LINEARS = ("query_key_value.weight", "dense.weight", "h_to_4h.weight", "4h_to_h.weight")
CHATGLM = CHATGLM_CONFIG | {"hidden_size": HIDDEN, "inner_hidden_size": 256, "vocab_size": 300}
CONFIG_130B = '{"num_attention_heads": 4, "max_sequence_length": 48}'


def int4_rows(state: dict[str, Any]) -> dict[str, Any]:
    """The matrices of the blocks as levels and scales, the rest in fp16."""
    out = {}
    for name, array in state.items():
        if name.endswith(LINEARS):
            out[name], out[f"{name}_scale"] = oracle.quantize(array.astype("float16"), 4)
        else:
            out[name] = array
    return out


def write_chatglm(folder: Path, bits: int = 4) -> None:
    model = tiny_model("chatglm-6b", **SIZES, ffn_hidden_size=256)
    state = int4_rows(files.chatglm(files.arrays_of(model), LAYERS))
    files.save_bin(folder, state, CHATGLM | {"quantization_bit": bits})


def write_glm_130b(folder: Path) -> None:
    model = tiny_model("glm-130b", **SIZES, ffn_hidden_size=96)
    state = int4_rows(files.glm_130b(files.arrays_of(model), LAYERS))
    files.save_ranks(folder, [state])
    (folder / "config.json").write_text(CONFIG_130B)


def write_ranks(folder: Path) -> None:
    """As GLM-130B runs on four GPUs: each rank quantized what it has."""
    model = tiny_model("glm-130b", **SIZES, ffn_hidden_size=128)
    arrays = files.arrays_of(model)
    states = [int4_rows(files.glm_130b(arrays, LAYERS, rank, 2)) for rank in range(2)]
    files.save_ranks(folder, states)
    (folder / "config.json").write_text(CONFIG_130B)


WRITERS = {"chatglm-6b": write_chatglm, "glm-130b": write_glm_130b, "two ranks": write_ranks}


@pytest.fixture(params=WRITERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: ByteBPETokenizer) -> Path:
    """A released INT4 folder, with a small vocabulary of ours."""
    WRITERS[request.param](tmp_path / "int4")
    tokenizer.save(tmp_path / "int4")
    return tmp_path / "int4"


SHARED = (Layout(4, 32), Layout(4, 64))
"""Half of 64 or 128 columns, as a group: how a matrix is held whose columns two ranks shared."""


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_released_rows_run_on_the_compiled_kernel(folder: Path) -> None:
    quantized, _ = load_model(folder)
    numbers, _ = load_model(folder, quantize="none")
    layers = [module for module in quantized.modules() if isinstance(module, QuantizedLinear)]
    assert len(layers) == 4 * LAYERS
    assert all(layer.packed is not None and layer.weight is None for layer in layers)
    assert {layer.layout for layer in layers} <= {Layout(4), *SHARED}
    assert not any(isinstance(module, QuantizedLinear) for module in numbers.modules())
    # what `linear_weight_only` calls for these, unless something else is chosen
    assert dispatch("linear_weight_only", "cpu") is linear_compiled
    ids = torch.randint(300, (2, 19), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = (model.logits(model(ids)) for model in (quantized, numbers))
    # the kernel rounds its input to 15 bits: measured worst of 6 models 8.2e-5
    assert apart(found, expected) < 1e-3


def test_released_rows_run_in_the_compiled_decode_step(folder: Path) -> None:
    quantized, _ = load_model(folder)
    numbers, _ = load_model(folder, quantize="none")
    decoder = fast_decoder(quantized)
    assert isinstance(decoder, FastDecoder)
    found, expected = decoded(quantized, decoder), decoded(numbers, None)
    assert apart(found, expected) < 1e-3  # measured worst of 6 models 8.2e-5


def decoded(model: Transformer, decoder: FastDecoder | None) -> torch.Tensor:
    """Logits of three columns after a prompt of nine."""
    generator = torch.Generator().manual_seed(1)
    ids_BT = torch.randint(300, (1, 12), generator=generator)
    places_B2T = torch.stack([torch.arange(12), torch.arange(12) // 3])[None]
    cache, logits = KVCache.for_model(model.config, 1, 12, torch.float32), []
    with torch.inference_mode():
        model(ids_BT[:, :9], places_B2T[..., :9], None, cache)
        for t in range(9, 12):
            if decoder is None:
                hidden = model(ids_BT[:, t : t + 1], places_B2T[..., t : t + 1], None, cache)
                logits.append(model.logits(hidden[:, -1]))
            else:
                place = (int(places_B2T[0, 0, t]), int(places_B2T[0, 1, t]))
                logits.append(decoder.step([int(ids_BT[0, t])], [place], (0,), cache))
    return torch.stack(logits)


def test_scales_of_ranks_become_those_of_groups(
    tmp_path: Path, tokenizer: ByteBPETokenizer
) -> None:
    write_ranks(tmp_path)
    tokenizer.save(tmp_path)
    model, _ = load_model(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    groups = {"dense": 32, "dense_4h_to_h": 64, "query_key_value": 0, "dense_h_to_4h": 0}
    for name, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear):
            assert layer.layout == Layout(4, groups[name.rpartition(".")[2]])
            # the levels times the scales of the ranks, in fp32, as the shards are joined
            numbers = checkpoint.read(f"{name}.weight", torch.float32)
            assert torch.equal(layer.dequantize(torch.float32), numbers), name
