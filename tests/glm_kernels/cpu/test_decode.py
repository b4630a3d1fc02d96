"""The compiled decode step against formulas in float64, and what its result does not depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from glm_kernels.cpu import library
from glm_kernels.cpu.decode import CompiledDecoder, unavailable
from glm_kernels.decode import DecodeShape, DecodeWeights, LayerWeights, LinearWeights, NormWeights

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason="no compiled kernels")

D, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB, LENGTH = 96, 6, 2, 48, 160, 50, 80
SHAPE = DecodeShape(
    hidden_size=D,
    num_heads=HEADS,
    num_kv_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    ffn_hidden_size=FFN,
    norm="rms_norm",
    norm_eps=1e-5,
    activation="silu",
    gate="first",
    rope=None,
    residual="pre",
    residual_scale=1.0,
    interleaved_heads=False,
)
FIRST = (0, 3, LENGTH)
PLACES = [(LENGTH, 0)] * 3


@pytest.fixture
def layer(quantized):
    """Weights of one layer with int4 groups, and the values they stand for, by name."""
    sizes = {
        "query_key_value": ((HEADS + 2 * KV_HEADS) * HEAD_DIM, D),
        "dense": (D, HEADS * HEAD_DIM),
        "up": (2 * FFN, D),
        "down": (D, FFN),
        "head": (VOCAB, D),
    }
    drawn = {
        name: quantized(rows, columns, 4, 32, name == "up", seed)
        for seed, (name, (rows, columns)) in enumerate(sizes.items())
    }
    linears = {name: LinearWeights(weight.packed, None) for name, weight in drawn.items()}
    norm, head = NormWeights(torch.full((D,), 1.5), None), linears.pop("head")
    block = LayerWeights(
        input_norm=norm,
        attention_out_norm=None,
        post_attention_norm=norm,
        mlp_out_norm=None,
        **linears,
    )
    weights = DecodeWeights(layers=(block,), final_norm=norm, head=head)
    return weights, {name: torch.from_numpy(weight.values) for name, weight in drawn.items()}


def inputs(rows: int = 3) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    x_BD = torch.randn(3, D)[:rows].clone()
    cache = torch.randn(2, 3, LENGTH + 2, KV_HEADS, HEAD_DIM)[:, :rows].clone()
    return x_BD, [cache[0]], [cache[1]]


def run(weights: DecodeWeights, rows: int = 3, threads: int = 2, front: int = 0) -> Tensor:
    x_BD, keys, values = inputs(rows)
    decoder, first = CompiledDecoder(SHAPE, weights), [max(front, c) for c in FIRST[:rows]]
    return decoder.step(x_BD, PLACES[:rows], first, keys, values, LENGTH, threads, front=front)


def norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * 1.5


def block(values: dict[str, Tensor], x: Tensor, queries: Tensor | None, front: int) -> Tensor:
    """The same layer, float64."""
    _, keys, cached = inputs()
    projected = norm(x) @ values["query_key_value"].T
    asked = projected if queries is None else queries @ values["query_key_value"].T
    q, qkv = asked.view(3, -1, HEAD_DIM), projected.view(3, -1, HEAD_DIM)
    out = torch.zeros(3, HEADS, HEAD_DIM, dtype=torch.float64)
    for row in range(3):
        seen = [*range(front), *range(max(front, FIRST[row]), LENGTH)]
        for head in range(HEADS):
            kv = head // (HEADS // KV_HEADS)
            k = torch.cat([keys[0][row, seen, kv].double(), qkv[row, HEADS + kv][None]])
            v = torch.cat(
                [cached[0][row, seen, kv].double(), qkv[row, HEADS + KV_HEADS + kv][None]]
            )
            weight = torch.softmax(k @ q[row, head] / HEAD_DIM**0.5, 0)
            out[row, head] = weight @ v
    x = x + out.flatten(1) @ values["dense"].T
    gate, up = (norm(x) @ values["up"].T).chunk(2, dim=-1)
    return x + (gate / (1 + (-gate).exp()) * up) @ values["down"].T


def formula(values: dict[str, Tensor], front: int = 0) -> Tensor:
    """Logits of a model of this layer, float64."""
    return norm(block(values, inputs()[0].double(), None, front)) @ values["head"].T


def test_step_is_the_formula_when_weights_are_quantized(layer, isa: str) -> None:
    weights, values = layer
    found, expected = run(weights).double(), formula(values)
    assert float((found - expected).norm() / expected.norm()) < 5e-4  # measured worst 4.9e-5


def test_first_columns_are_seen_by_all_when_there_is_a_prefix(layer, isa: str) -> None:
    weights, values = layer
    found, expected = run(weights, front=2).double(), formula(values, front=2)
    assert float((found - expected).norm() / expected.norm()) < 5e-4  # measured worst 3.4e-5
    assert not torch.equal(found[2], run(weights)[2].double())


@pytest.mark.parametrize("rows", [3, 1])
def test_last_layer_asks_with_its_own_queries_when_it_is_the_top_query_layer(
    layer, isa: str, rows: int
) -> None:
    weights, values = layer
    x_BD, keys, cached = inputs(rows)
    queries_BD = torch.randn(3, D)
    decoder = CompiledDecoder(replace(SHAPE, top_query=True, rope="halves"), weights)
    decoder.use_tables(*torch.randn(2, LENGTH + 1, 8))  # nothing is rotated in that layer
    found = decoder.step(
        x_BD, PLACES[:rows], FIRST[:rows], keys, cached, LENGTH, 2, queries_BD=queries_BD[:rows]
    )
    below = norm(inputs()[0].double())
    expected = (block(values, below, queries_BD.double(), 0) @ values["head"].T)[:rows]
    assert float((found - expected).norm() / expected.norm()) < 5e-4  # measured worst 5.2e-5


def test_result_is_the_same_to_the_bit_for_any_threads_and_rows(layer) -> None:
    weights, _ = layer
    together = run(weights, threads=1)
    for threads in (2, 3):
        assert torch.equal(run(weights, threads=threads), together)
    assert torch.equal(run(weights, rows=1), together[:1])


def test_instruction_sets_agree(layer) -> None:
    weights, _ = layer
    results = []
    for name in library.available_isas():
        with library.use_isa(name):
            results.append(run(weights))
    for result in results[1:]:
        # fp32 sums in another order; then a number can be rounded to the next integer of 15 bits
        # measured worst 3.6e-5
        assert float((result - results[0]).norm() / results[0].norm()) < 5e-4


def test_column_is_stored_where_the_cache_ends(layer) -> None:
    weights, values = layer
    x_BD, keys, cached = inputs()
    before = keys[0].clone()
    x = x_BD.double()
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * 1.5
    expected = (normed @ values["query_key_value"].T).view(3, -1, HEAD_DIM)
    CompiledDecoder(SHAPE, weights).step(x_BD, PLACES, FIRST, keys, cached, LENGTH, 2)
    rest = [column for column in range(LENGTH + 2) if column != LENGTH]
    assert torch.equal(keys[0][:, rest], before[:, rest])
    stored = torch.cat([keys[0][:, LENGTH], cached[0][:, LENGTH]], dim=1).double()
    error = (stored - expected[:, HEADS:]).norm() / expected[:, HEADS:].norm()
    assert float(error) < 3e-4  # measured 4.0e-5


def test_nan_stays_in_its_row(layer) -> None:
    weights, _ = layer
    x_BD, keys, values = inputs()
    x_BD[1, 7] = float("nan")
    found = CompiledDecoder(SHAPE, weights).step(x_BD, PLACES, FIRST, keys, values, LENGTH, 2)
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], run(weights)[[0, 2]])


def test_many_rows_are_computed_when_tiles_are_not_full(layer) -> None:
    weights, _ = layer
    x_BD, keys, values = inputs(1)
    rows = 11  # a tile of eight and one of three
    found = CompiledDecoder(SHAPE, weights).step(
        x_BD.repeat(rows, 1),
        [PLACES[0]] * rows,
        [0] * rows,
        [keys[0].repeat(rows, 1, 1, 1)],
        [values[0].repeat(rows, 1, 1, 1)],
        LENGTH,
        2,
    )
    assert torch.equal(found, run(weights, rows=1).expand(rows, -1))


def test_shape_is_refused_when_heads_do_not_fill_vectors(layer) -> None:
    weights, _ = layer
    assert unavailable(SHAPE, weights) is None
    reason = unavailable(replace(SHAPE, head_dim=40), weights)
    assert reason == "heads have 40 dims: not a multiple of 16 up to 256"
    double = replace(weights, head=LinearWeights(torch.zeros(VOCAB, D).double(), None))
    assert "a weight is torch.float64 on cpu" in str(unavailable(SHAPE, double))
