"""Rows that the compiled decode step looks up: embeddings of every form, and places."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from glm_kernels import dequantize_packed
from glm_kernels.cpu import library
from glm_kernels.cpu.decode import CompiledDecoder, unavailable
from glm_kernels.decode import (
    DecodeShape,
    DecodeWeights,
    LayerWeights,
    LinearWeights,
    NormWeights,
    StoredWeight,
)

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason="no compiled kernels")

D, ROWS, TOKENS, PLACES = 192, 37, (36, 0, 17), [(3, 1), (0, 0), (2, 4)]
SHAPE = DecodeShape(
    hidden_size=D,
    num_heads=1,
    num_kv_heads=1,
    head_dim=16,
    ffn_hidden_size=16,
    norm="layer_norm",
    norm_eps=1e-5,
    activation="gelu_tanh",
    gate=None,
    rope=None,
    residual="pre",
    residual_scale=1.0,
    interleaved_heads=False,
)


def zeros(rows: int, columns: int) -> LinearWeights:
    return LinearWeights(torch.zeros(rows, columns), None)


def model(words, *positions: Tensor) -> DecodeWeights:
    """A model whose layer adds nothing: its logits are the normed embeddings."""
    norm = NormWeights(torch.ones(D), None)
    layer = LayerWeights(
        input_norm=norm,
        query_key_value=zeros(48, D),
        dense=zeros(D, 16),
        attention_out_norm=None,
        post_attention_norm=norm,
        up=zeros(16, D),
        down=zeros(D, 16),
        mlp_out_norm=None,
    )
    head = LinearWeights(torch.eye(D), None)
    return DecodeWeights(
        words=words, positions=positions, layers=(layer,), final_norm=norm, head=head
    )


def logits(weights: DecodeWeights, shape: DecodeShape = SHAPE) -> Tensor:
    cache = [torch.zeros(3, 1, 1, 16)]
    return CompiledDecoder(shape, weights).step(TOKENS, PLACES, [0] * 3, cache, cache, 0, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_logits_are_the_normed_rows(dtype: torch.dtype, isa) -> None:
    torch.manual_seed(0)
    words = torch.randn(ROWS, D).to(dtype)
    expected = torch.layer_norm(words[list(TOKENS)].double(), (D,))
    found = logits(model(words)).double()
    assert float((found - expected).abs().max()) < 2e-6  # measured 4.5e-7


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("group", [None, 32, 64])
@pytest.mark.parametrize("bits", [4, 8])
def test_row_is_its_numbers_when_the_table_is_quantized(
    quantized, bits: int, group: int | None, zero_points: bool, is_stored: bool, isa
) -> None:
    drawn = quantized(ROWS, D, bits, group, zero_points)
    levels, scales, points = drawn.stored
    stored = StoredWeight(levels=levels, scales=scales, zeros=points, bits=bits, group=group)
    numbers = torch.from_numpy(drawn.values).float()
    assert torch.equal(dequantize_packed(drawn.packed), numbers)
    table = stored if is_stored else drawn.packed
    assert torch.equal(logits(model(table)), logits(model(numbers)))


def test_places_are_added_when_they_are_learned(isa) -> None:
    torch.manual_seed(0)
    words, position, block = torch.randn(ROWS, D), torch.randn(4, D), torch.randn(5, D)
    rows = words[list(TOKENS)] + position[[3, 0, 2]]
    for tables, sums in (((position,), rows), ((position, block), rows + block[[1, 0, 4]])):
        expected = torch.layer_norm(sums.double(), (D,))
        found = logits(model(words, *tables)).double()
        assert float((found - expected).abs().max()) < 2e-6  # measured 4.7e-7


@pytest.mark.parametrize("token", [-1, ROWS])
def test_token_is_refused_when_the_table_has_no_such_row(token: int) -> None:
    decoder, cache = CompiledDecoder(SHAPE, model(torch.zeros(ROWS, D))), [torch.zeros(1, 1, 1, 16)]
    with pytest.raises(IndexError, match=rf"tokens \[{token}\] must lie in 0 to 36"):
        decoder.step([token], [(0, 0)], [0], cache, cache, 0, 1)


@pytest.mark.parametrize("place", [(-1, 0), (4, 0), (0, 5)])
def test_place_is_refused_when_the_tables_have_no_such_row(place: tuple[int, int]) -> None:
    weights = model(torch.zeros(ROWS, D), torch.zeros(6, D), torch.zeros(5, D))
    weights = replace(weights, queries=torch.zeros(4, D))
    decoder, cache = CompiledDecoder(SHAPE, weights), [torch.zeros(1, 1, 1, 16)]
    with pytest.raises(IndexError, match=r"must be below \(4, 5\), the rows of the tables"):
        decoder.step([0], [place], [0], cache, cache, 0, 1)


def test_place_is_refused_when_the_rotary_tables_end_before_it() -> None:
    decoder = CompiledDecoder(replace(SHAPE, rope="2d"), model(torch.zeros(ROWS, D)))
    cache = [torch.zeros(1, 1, 1, 16)]
    decoder.use_tables(torch.ones(7, 4), torch.zeros(7, 4))
    decoder.step([0], [(6, 6)], [0], cache, cache, 0, 1)
    with pytest.raises(IndexError, match=r"place \(6, 7\) must be below \(7, 7\)"):
        decoder.step([0], [(6, 7)], [0], cache, cache, 0, 1)


def test_table_is_refused_when_the_step_cannot_read_it() -> None:
    assert unavailable(SHAPE, model(torch.zeros(ROWS, D))) is None
    double = model(torch.zeros(ROWS, D, dtype=torch.float64))
    assert "a weight is torch.float64 on cpu" in str(unavailable(SHAPE, double))
    turned = model(torch.zeros(ROWS, D), torch.zeros(D, 4).T)
    assert "shape [4, 192] is not contiguous" in str(unavailable(SHAPE, turned))
