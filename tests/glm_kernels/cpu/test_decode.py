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
    x_BD, _, _ = inputs()
    weights = DecodeWeights(words=x_BD, positions=(), layers=(block,), final_norm=norm, head=head)
    return weights, {name: torch.from_numpy(weight.values) for name, weight in drawn.items()}


def inputs(rows: int = 3, length: int = LENGTH) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Embeddings of tokens 0, 1, 2, and the cache's keys and values."""
    torch.manual_seed(0)
    x_BD = torch.randn(3, D)
    cache = torch.randn(2, 3, length + 2, KV_HEADS, HEAD_DIM)[:, :rows].clone()
    return x_BD, [cache[0]], [cache[1]]


def firsts(length: int, front: int) -> list[int]:
    """The first columns that the rows see: all, some, and the new one alone."""
    return [front, max(front, length * 5 // 8), length]


def run(
    weights: DecodeWeights,
    rows: int = 3,
    threads: int = 2,
    front: int = 0,
    length: int = LENGTH,
    shape: DecodeShape = SHAPE,
) -> Tensor:
    _, keys, values = inputs(rows, length)
    first, places = firsts(length, front)[:rows], [(length, 0)] * rows
    decoder = CompiledDecoder(shape, weights)
    return decoder.step(range(rows), places, first, keys, values, length, threads, front)


def norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * 1.5


def block(
    values: dict[str, Tensor],
    x: Tensor,
    queries: Tensor | None = None,
    front: int = 0,
    length: int = LENGTH,
) -> Tensor:
    """The same layer, float64."""
    _, keys, cached = inputs(3, length)
    projected = norm(x) @ values["query_key_value"].T
    asked = projected if queries is None else queries @ values["query_key_value"].T
    q, qkv = asked.view(3, -1, HEAD_DIM), projected.view(3, -1, HEAD_DIM)
    out = torch.zeros(3, HEADS, HEAD_DIM, dtype=torch.float64)
    for row in range(3):
        seen = [*range(front), *range(firsts(length, front)[row], length)]
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


def formula(values: dict[str, Tensor], front: int = 0, length: int = LENGTH) -> Tensor:
    """Logits of a model of this layer, float64."""
    x = inputs()[0].double()
    return norm(block(values, x, None, front, length)) @ values["head"].T


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def test_step_is_the_formula_when_weights_are_quantized(layer, isa: str) -> None:
    weights, values = layer
    assert apart(run(weights), formula(values)) < 5e-4  # measured worst 4.9e-5


@pytest.mark.parametrize("front", [0, 2, 530])
@pytest.mark.parametrize("length", [0, 1, 511, 1100])  # one piece; three, of 384 columns
def test_step_is_the_formula_when_columns_are_cut_into_pieces(
    layer, isa: str, length: int, front: int
) -> None:
    weights, values = layer
    front = min(front, length)
    found = run(weights, front=front, length=length)
    assert apart(found, formula(values, front, length)) < 5e-4  # measured worst 6.5e-5
    assert torch.equal(run(weights, front=front, length=length, threads=1), found)


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 1), (20, 1), (8, 2), (5, 5)])
def test_heads_share_keys_when_there_are_fewer_of_those(heads: int, kv_heads: int, isa) -> None:
    """One key for all columns: then every head's result is the mean of the values."""
    torch.manual_seed(2)
    length, size = 1500, 32
    width = heads * size
    nothing = torch.zeros(width, width)
    values = torch.randn(1, length, kv_heads, size)
    weights = DecodeWeights(
        words=torch.randn(1, width),
        positions=(),
        layers=(
            LayerWeights(
                input_norm=NormWeights(torch.zeros(width), None),
                query_key_value=LinearWeights(
                    torch.zeros((heads + 2 * kv_heads) * size, width), None
                ),
                dense=LinearWeights(torch.eye(width), None),
                attention_out_norm=None,
                post_attention_norm=NormWeights(torch.zeros(width), None),
                up=LinearWeights(nothing, None),
                down=LinearWeights(nothing, None),
                mlp_out_norm=None,
            ),
        ),
        final_norm=NormWeights(torch.ones(width), None),
        head=LinearWeights(torch.eye(width), None),
    )
    sizes = {"hidden_size": width, "num_heads": heads, "num_kv_heads": kv_heads}
    shape = replace(
        SHAPE, **sizes, head_dim=size, ffn_hidden_size=width, gate=None, activation="gelu_erf"
    )
    found = CompiledDecoder(shape, weights).step(
        [0], [(0, 0)], [0], [torch.zeros_like(values)], [values.clone()], length - 1, 2
    )
    mean = values[:, :-1].double().sum(1) / length  # the new column's value is zero
    x = weights.words.double() + mean.repeat_interleave(heads // kv_heads, 1).flatten(1)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert apart(found, expected) < 1e-6  # measured worst 1.3e-7


@pytest.mark.parametrize("rows", [3, 1])
def test_last_layer_asks_with_its_own_queries_when_it_is_the_top_query_layer(
    layer, isa: str, rows: int
) -> None:
    weights, values = layer
    _, keys, cached = inputs(rows)
    queries = torch.randn(3, D)
    decoder = CompiledDecoder(replace(SHAPE, rope="halves"), replace(weights, queries=queries))
    decoder.use_tables(*torch.randn(2, LENGTH + 1, 8))  # nothing is rotated in that layer
    places, first = [(2 - row, 0) for row in range(rows)], firsts(LENGTH, 0)[:rows]
    found = decoder.step(range(rows), places, first, keys, cached, LENGTH, 2)
    below = norm(inputs()[0].double())
    expected = (block(values, below, queries.flip(0).double()) @ values["head"].T)[:rows]
    assert apart(found, expected) < 5e-4  # measured worst 5.2e-5


def test_result_is_the_same_to_the_bit_for_any_threads_and_rows(layer) -> None:
    weights, _ = layer
    together = run(weights, threads=1)
    for threads in (2, 3):
        assert torch.equal(run(weights, threads=threads), together)
    assert torch.equal(run(weights, rows=1), together[:1])


def test_column_is_stored_where_the_cache_ends(layer) -> None:
    weights, values = layer
    x_BD, keys, cached = inputs()
    before = keys[0].clone()
    x = x_BD.double()
    expected = (norm(x) @ values["query_key_value"].T).view(3, -1, HEAD_DIM)
    CompiledDecoder(SHAPE, weights).step(
        range(3), [(LENGTH, 0)] * 3, [0] * 3, keys, cached, LENGTH, 2
    )
    rest = [column for column in range(LENGTH + 2) if column != LENGTH]
    assert torch.equal(keys[0][:, rest], before[:, rest])
    stored = torch.cat([keys[0][:, LENGTH], cached[0][:, LENGTH]], dim=1).double()
    error = (stored - expected[:, HEADS:]).norm() / expected[:, HEADS:].norm()
    assert float(error) < 3e-4  # measured 4.0e-5


def test_nan_stays_in_its_row(layer) -> None:
    weights, _ = layer
    damaged = weights.words.clone()
    damaged[1, 7] = float("nan")
    found = run(replace(weights, words=damaged))
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], run(weights)[[0, 2]])


def test_many_rows_are_computed_when_tiles_are_not_full(layer) -> None:
    weights, _ = layer
    _, keys, values = inputs(1)
    rows = 11  # a tile of eight and one of three
    found = CompiledDecoder(SHAPE, weights).step(
        [0] * rows,
        [(LENGTH, 0)] * rows,
        [0] * rows,
        [keys[0].repeat(rows, 1, 1, 1)],
        [values[0].repeat(rows, 1, 1, 1)],
        LENGTH,
        2,
    )
    assert torch.equal(found, run(weights, rows=1).expand(rows, -1))


@pytest.mark.parametrize("rows", (25, 150))
def test_very_many_rows_are_computed_as_one_is(layer, rows: int) -> None:
    weights, _ = layer
    _, keys, values = inputs(1)
    cache = [x[0].repeat(rows, 1, 1, 1) for x in (keys, values)]
    places, decoder = [(LENGTH, 0)] * rows, CompiledDecoder(SHAPE, weights)
    found = [
        decoder.step([0] * rows, places, [0] * rows, cache[:1], cache[1:], LENGTH, threads)
        for threads in (1, 2)
    ]
    assert torch.equal(*found)
    one = run(weights, rows=1).expand(rows, -1)
    error = (found[0] - one).norm() / one.norm()
    assert float(error) < 3e-4  # measured 9.7e-5


def test_shape_is_refused_when_heads_do_not_fill_vectors(layer) -> None:
    weights, _ = layer
    assert unavailable(SHAPE, weights) is None
    reason = unavailable(replace(SHAPE, head_dim=40), weights)
    assert reason == "heads have 40 dims: not a multiple of 16 up to 256"
    double = replace(weights, head=LinearWeights(torch.zeros(VOCAB, D).double(), None))
    assert "a weight is torch.float64 on cpu" in str(unavailable(SHAPE, double))


def test_step_is_refused_when_the_cache_does_not_belong_to_it(layer) -> None:
    weights, _ = layer
    decoder = CompiledDecoder(SHAPE, weights)
    _, keys, values = inputs()

    def step(rows=3, firsts=3, keys=keys, values=values, length=LENGTH, front=0):
        places = [(0, 0)] * rows
        decoder.step(range(rows), places, [0] * firsts, keys, values, length, 1, front)

    short, strided = [keys[0][:, :, :1]], [keys[0].transpose(0, 1).contiguous().transpose(0, 1)]
    step(length=LENGTH + 1)
    for change, message in (
        ({"length": LENGTH + 2}, "of 82 columns with room for 82: they must lie in it, with room"),
        ({"length": -1}, "cache of -1 columns"),
        ({"front": LENGTH + 1}, "81 columns seen by all, in a cache of 80 columns"),
        ({"firsts": 2}, "3 tokens, 3 places, 2 first columns: each row has one of each"),
        ({"rows": 0}, "0 tokens, .* there must be a row"),
        (
            {"rows": 2, "firsts": 2},
            r"of shape \[3, 82, 2, 48\] on cpu: it must .* \[2, 82, 2, 48\]",
        ),
        ({"keys": short}, r"cache is .* of shape \[3, 82, 1, 48\]"),
        ({"keys": strided}, "it must be contiguous"),
        ({"values": [values[0].half()]}, "torch.float16 .* it must be contiguous, torch.float32"),
        ({"keys": keys * 2}, "keys of 2 layers and values of 1: the model has 1 layers"),
        ({"keys": [keys[0].double()]}, "the cache is torch.float64: it must be fp32, bf16 or"),
    ):
        with pytest.raises(ValueError, match=message):
            step(**change)
