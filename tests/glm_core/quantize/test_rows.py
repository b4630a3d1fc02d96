from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

from glm_core.checkpoint.files import write_safetensors
from glm_core.quantize import dequantize_rows, pack_int4, quantize_rows, unpack_int4
from glm_core.quantize import rows as rows_module

from . import released_layout as oracle

BITS = pytest.mark.parametrize("bits", [8, 4])


@BITS
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("size", [0.005, 0.02, 1.0, 300.0])
def test_bytes_are_those_of_the_original_when_rows_are_ordinary(
    bits: int, dtype: torch.dtype, size: float
) -> None:
    weight = (torch.randn(37, 66) * size).to(dtype)
    levels, scale = quantize_rows(weight, bits)
    their_levels, their_scale = oracle.quantize(weight.numpy(), bits)
    assert levels.dtype == torch.int8 and scale.dtype == torch.float16
    assert levels.numpy().tobytes() == their_levels.tobytes()
    assert scale.numpy().tobytes() == their_scale.tobytes()


@BITS
def test_scale_is_rounded_to_bf16_first_when_the_weight_is_bf16(bits: int) -> None:
    """As torch divides: bf16 by a number in bf16, bf16 by the fp16 scale in fp32."""
    weight = (torch.randn(64, 32) * 0.02).bfloat16()
    exact = weight.float().numpy()
    largest = np.abs(exact).max(axis=1)
    their_scale = oracle.to_bf16(largest / np.float32(2 ** (bits - 1) - 1)).astype(np.float16)
    their_levels = np.rint(exact / their_scale.astype(np.float32)[:, None]).astype(np.int8)
    levels, scale = quantize_rows(weight, bits)
    assert scale.numpy().tobytes() == their_scale.tobytes()
    wide = levels if bits == 8 else unpack_int4(levels)
    assert wide.numpy().tobytes() == their_levels.tobytes()


@BITS
def test_values_are_those_of_the_original_when_every_byte_is_read(bits: int) -> None:
    stored = torch.arange(-128, 128, dtype=torch.int8).repeat(5, 1)
    scale = torch.tensor([2.0**-24, 1e-5, 0.0123, 1.7, 500.0]).half()
    expected = oracle.extract(stored.numpy(), scale.numpy(), bits)
    half = dequantize_rows(stored, scale, bits, torch.float16)
    assert half.numpy().tobytes() == expected.tobytes()
    # the exact product has 19 bits: fp32 holds it, and bf16 rounds it once
    wide = stored if bits == 8 else unpack_int4(stored)
    exact = wide.double() * scale.double()[:, None]
    assert torch.equal(dequantize_rows(stored, scale, bits, torch.float32).double(), exact)
    rounded = exact.float().bfloat16()
    assert torch.equal(dequantize_rows(stored, scale, bits, torch.bfloat16), rounded)


def test_even_column_is_in_the_high_nibble_when_packed() -> None:
    levels = torch.tensor([[1, 2, -1, -8, 7, -7, 0, -2]], dtype=torch.int8)
    packed = pack_int4(levels)
    assert [byte & 0xFF for byte in packed[0].tolist()] == [0x12, 0xF8, 0x79, 0x0E]
    assert torch.equal(unpack_int4(packed), levels)


def test_all_pairs_come_back_when_packed() -> None:
    every = torch.arange(-8, 8, dtype=torch.int8)
    pairs = torch.cartesian_prod(every, every)
    assert torch.equal(unpack_int4(pack_int4(pairs)), pairs)
    assert pack_int4(pairs).numpy().tobytes() == oracle.compress_int4(pairs.numpy()).tobytes()


@BITS
def test_original_reads_the_values_when_we_write_a_file(bits: int, tmp_path: Path) -> None:
    weight = (torch.randn(24, 32) * 0.02).half()
    levels, scale = quantize_rows(weight, bits)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a.weight": levels, "a.weight_scale": scale})
    theirs = load_file(path)
    read = oracle.extract(theirs["a.weight"], theirs["a.weight_scale"], bits)
    ours = dequantize_rows(levels, scale, bits, torch.float16)
    assert read.tobytes() == ours.numpy().tobytes()
    exact = weight.numpy().astype(np.float64)
    step = np.abs(exact).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    error = np.abs(read - exact) / step
    # measured worst 0.577 of a step (4 bits: 0.504): fp16 rounds w / scale, the scale and the value
    assert error.max() <= 0.6, error.max()


@BITS
def test_we_read_the_values_when_the_original_writes_a_file(bits: int, tmp_path: Path) -> None:
    weight = (np.random.default_rng(0).standard_normal((24, 32)) * 0.02).astype(np.float16)
    levels, scale = oracle.quantize(weight, bits)
    save_file({"w": levels, "s": scale}, tmp_path / "theirs.safetensors")
    stored = load_torch(tmp_path / "theirs.safetensors")
    ours = dequantize_rows(stored["w"], stored["s"], bits, torch.float16)
    assert ours.numpy().tobytes() == oracle.extract(levels, scale, bits).tobytes()


@BITS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_stay_finite_when_rows_are_zero_or_tiny(bits: int, dtype: torch.dtype) -> None:
    tiny = [[0.0, 0.0], [1e-7, -1e-7], [6e-8, 0.0], [-3e-6, 3e-6], [1e-4, -9e-5], [-5.0, 5.0]]
    weight = torch.tensor(tiny).to(dtype)
    levels, scale = quantize_rows(weight, bits)
    assert scale.isfinite().all() and (scale > 0).all()
    back = dequantize_rows(levels, scale, bits, torch.float32)
    assert back.isfinite().all() and (back[0] == 0).all()
    assert (back.sign() * weight.sign() >= 0).all(), "a level wrapped around"
    top = 2 ** (bits - 1) - 1
    # half a level, or where the scale is subnormal what its own rounding (2^-25) makes of it
    allowed = 0.51 * weight.float().abs().amax(1, keepdim=True) / top + top * 2.0**-25
    # measured worst, of max |w|: 19 % at 1e-7 (the scale's 2^-24 is half of it), 4.3 % at 1e-4
    assert ((back - weight.float()).abs() <= allowed).all()


def test_original_would_give_nonsense_when_rows_are_zero_or_tiny() -> None:
    """What the clamp and the smallest scale are there for."""
    weight = np.array([[0.0, 0.0], [1.1e-5, -1.1e-5]], dtype=np.float32)
    with np.errstate(invalid="ignore"):
        levels = np.rint(weight / oracle.quantize(weight[1:], 8)[1][:, None])
        assert np.isnan(weight[0] / (np.abs(weight[0]).max() / np.float32(127))).all()
    assert levels[1].tolist() == [185.0, -185.0]  # beyond int8: it wraps to -71 and 71
    ours, _ = quantize_rows(torch.from_numpy(weight), 8)
    assert ours.tolist() == [[0, 0], [127, -128]]


def test_scale_is_the_largest_fp16_when_a_row_is_beyond_it() -> None:
    levels, scale = quantize_rows(torch.tensor([[1e7, -1.0, 1e5]]), 8)
    assert scale.tolist() == [65504.0]
    assert levels.tolist() == [[127, 0, 2]]


@pytest.mark.parametrize("top", [127, 7])
def test_scale_does_not_depend_on_the_device_when_the_weight_is_fp16(top: int) -> None:
    """GPUs multiply by 1 / L where CPUs divide: the fp16 result is equal for every fp16 value."""
    every = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16)
    divided = (every.astype(np.float32) / np.float32(top)).astype(np.float16)
    multiplied = (every.astype(np.float32) * (np.float32(1) / np.float32(top))).astype(np.float16)
    assert divided.tobytes() == multiplied.tobytes()


@BITS
def test_result_is_the_same_when_rows_are_worked_on_in_chunks(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(19, 10)
    whole = quantize_rows(weight, bits)
    value = dequantize_rows(*whole, bits, torch.float32)
    monkeypatch.setattr(rows_module, "CHUNK_ELEMENTS", 40)
    chunked = quantize_rows(weight, bits)
    assert all(torch.equal(a, b) for a, b in zip(whole, chunked, strict=True))
    assert torch.equal(dequantize_rows(*chunked, bits, torch.float32), value)


def test_error_names_the_setting_when_input_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"bits is 3: a quantized matrix has 8 or 4 bits"):
        quantize_rows(torch.ones(2, 4), 3)
    with pytest.raises(ValueError, match=r"with 5 columns cannot have 4 bits.*use bits=8"):
        quantize_rows(torch.ones(2, 5), 4)
    with pytest.raises(ValueError, match=r"with 3 columns cannot have 4 bits.*must be even"):
        pack_int4(torch.ones(2, 3, dtype=torch.int8))
    with pytest.raises(ValueError, match=r"NaN or infinity, first in row 1: it cannot be"):
        quantize_rows(torch.tensor([[1.0, 2.0], [float("nan"), 1.0]]), 8)
    with pytest.raises(
        ValueError, match=r"levels are torch.int8 of shape \[2, 4\] and scales have"
    ):
        dequantize_rows(torch.ones(2, 4, dtype=torch.int8), torch.ones(3), 8)
    with pytest.raises(ValueError, match=r"bits is 16"):
        dequantize_rows(torch.ones(2, 4, dtype=torch.int8), torch.ones(2), 16)
