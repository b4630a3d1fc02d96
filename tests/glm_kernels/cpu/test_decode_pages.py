"""The compiled decode step over pages: the same numbers as over a cache in one run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glm_kernels.cpu import library
from glm_kernels.cpu.decode import CompiledDecoder
from glm_kernels.cpu.decode_pages import PAGE_COLUMNS, PageTable, RowPages
from glm_kernels.decode import DecodeShape, DecodeWeights, LayerWeights, LinearWeights, NormWeights

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason="no compiled kernels")

D, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 64, 4, 2, 16, 40
LENGTHS = (0, 1, PAGE_COLUMNS - 1, PAGE_COLUMNS, 700, 3 * PAGE_COLUMNS + 5)
"""The longest is cut into pieces for the threads."""
SHAPE = DecodeShape(
    hidden_size=D,
    num_heads=HEADS,
    num_kv_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    ffn_hidden_size=D,
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
def decoder() -> CompiledDecoder:
    generator = torch.Generator().manual_seed(0)

    def linear(rows: int, columns: int) -> LinearWeights:
        return LinearWeights(torch.randn(rows, columns, generator=generator) / columns**0.5, None)

    norm = NormWeights(torch.ones(D), None)
    layer = LayerWeights(
        input_norm=norm,
        query_key_value=linear((HEADS + 2 * KV_HEADS) * HEAD_DIM, D),
        dense=linear(D, HEADS * HEAD_DIM),
        attention_out_norm=None,
        post_attention_norm=norm,
        up=linear(2 * D, D),
        down=linear(D, D),
        mlp_out_norm=None,
    )
    words = torch.randn(VOCAB, D, generator=generator)
    weights = DecodeWeights(
        words=words, positions=(), layers=(layer, layer), final_norm=norm, head=linear(VOCAB, D)
    )
    return CompiledDecoder(SHAPE, weights)


def scattered(num_pages: int) -> tuple[list[Tensor], list[Tensor], list[list[int]]]:
    """Keys and values of two layers, and the pages of each text, in no order."""
    generator = torch.Generator().manual_seed(1)
    shape = (2, 2, num_pages * PAGE_COLUMNS, KV_HEADS, HEAD_DIM)
    keys, values = torch.randn(shape, generator=generator)
    free = torch.randperm(num_pages, generator=generator).tolist()
    pages = [[free.pop() for _ in range(length // PAGE_COLUMNS + 1)] for length in LENGTHS]
    return list(keys), list(values), pages


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
@pytest.mark.parametrize("threads", (1, 2))
def test_pages_give_what_a_run_gives_when_texts_have_any_length(
    decoder: CompiledDecoder, dtype: torch.dtype, threads: int
) -> None:
    keys, values, pages = scattered(24)
    keys, values = [x.to(dtype) for x in keys], [x.to(dtype) for x in values]
    tables = [
        PageTable([p * PAGE_COLUMNS for p in row], len(row) * PAGE_COLUMNS, len(keys[0]))
        for row in pages
    ]
    rows = len(LENGTHS)
    places = [(0, 0)] * rows
    before = [x.clone() for x in (*keys, *values)]
    where = RowPages(tables, LENGTHS, [length + 1 for length in LENGTHS])
    found = decoder.step_pages(range(rows), places, where, keys, values, threads)
    for row, (length, own) in enumerate(zip(LENGTHS, pages, strict=True)):
        at = torch.tensor(own)[:, None] * PAGE_COLUMNS + torch.arange(PAGE_COLUMNS)
        run = [x[at.flatten()][None] for x in before]
        alone = decoder.step([row], [(0, 0)], [0], run[:2], run[2:], length, 1)
        assert torch.equal(found[row], alone[0])
        for after, stored in zip((*keys, *values), run, strict=True):
            assert torch.equal(after[at.flatten()], stored[0])


def test_other_pages_stay_as_they_are_when_a_column_is_stored(decoder: CompiledDecoder) -> None:
    keys, values, _ = scattered(24)
    before = keys[1].clone()
    table = PageTable([5 * PAGE_COLUMNS, 2 * PAGE_COLUMNS], 100, len(before))
    where = RowPages([table], [PAGE_COLUMNS + 3], [PAGE_COLUMNS + 4])
    decoder.step_pages([1], [(0, 0)], where, keys, values, 1)
    changed = (keys[1] != before).flatten(1).any(1).nonzero().flatten().tolist()
    assert changed == [2 * PAGE_COLUMNS + 3]


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
def test_rows_of_one_text_give_what_column_after_column_gives(
    decoder: CompiledDecoder, dtype: torch.dtype
) -> None:
    num_rows, start = 9, PAGE_COLUMNS - 4
    tokens, places = [3 * row % VOCAB for row in range(num_rows)], [(0, 0)] * num_rows
    found = []
    for together in (True, False):
        keys, values = ([x.to(dtype) for x in part] for part in scattered(24)[:2])
        table = PageTable([5 * PAGE_COLUMNS, 2 * PAGE_COLUMNS], 128, len(keys[0]))
        at = range(start, start + num_rows)
        where = RowPages([table] * num_rows, at, [place + 1 for place in at])
        if together:
            logits = decoder.step_pages(tokens, places, where, keys, values, 2)
        else:
            steps = [
                decoder.step_pages([t], [(0, 0)], RowPages([table], [n], [n + 1]), keys, values, 1)
                for t, n in zip(tokens, at, strict=True)
            ]
            logits = torch.cat(steps)
        found.append((logits, torch.stack([*keys, *values])))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_columns_see_those_behind_them_when_they_are_to(decoder: CompiledDecoder) -> None:
    keys, values, _ = scattered(24)
    table, places = PageTable([0], 64, len(keys[0])), [(0, 0)] * 3

    def logits(tokens: list[int], visible: list[int]) -> Tensor:
        where = RowPages([table] * 3, [0, 1, 2], visible)
        return decoder.step_pages(tokens, places, where, keys, values, 1)

    assert torch.equal(logits([1, 2, 3], [1, 2, 3])[0], logits([1, 2, 4], [1, 2, 3])[0])
    both = logits([1, 2, 3], [3, 3, 3])
    assert not torch.allclose(both[0], logits([1, 2, 4], [3, 3, 3])[0])
    swapped = logits([3, 2, 1], [3, 3, 3])
    assert torch.allclose(both, swapped.flip(0), atol=1e-5), "no place is told apart here"


def test_only_the_first_rows_have_logits_when_few_are_asked_for(decoder: CompiledDecoder) -> None:
    keys, values, _ = scattered(24)
    table = PageTable([0], 64, len(keys[0]))
    where = RowPages([table] * 3, [0, 1, 2], [1, 2, 3])
    found = [
        decoder.step_pages([1, 2, 3], [(0, 0)] * 3, where, keys, values, 1, count)
        for count in range(4)
    ]
    assert [len(logits) for logits in found] == [0, 1, 2, 3]
    for count, logits in enumerate(found):
        assert torch.equal(logits, found[3][:count])


@pytest.mark.parametrize(
    ("begins", "capacity"), (([0, 64], 64), ([0], 65), ([-64], 64), ([64], 64), ([64], 33), ([], 1))
)
def test_a_table_is_refused_when_it_leaves_the_cache(begins: list[int], capacity: int) -> None:
    PageTable([0, 64], 96, 96)
    with pytest.raises(ValueError, match="must be as many as are needed, and lie in a cache of 96"):
        PageTable(begins, capacity, 96)


def test_pages_are_refused_when_they_do_not_belong_to_the_step(decoder: CompiledDecoder) -> None:
    keys, values = ([x[:128] for x in part] for part in scattered(24)[:2])

    def step(places=1, lengths=(5,), visible=(6,), keys=keys, columns=128, logits=1):
        where = RowPages([PageTable([0], 64, columns)], lengths, visible)
        decoder.step_pages([0], [(0, 0)] * places, where, keys, values, 1, logits)

    step()
    for change, message in (
        ({"places": 2}, "1 tokens, 2 places, 1 tables of pages, 1 lengths"),
        ({"lengths": ()}, "1 tables of pages, 0 lengths, .* each row has one of each"),
        ({"visible": ()}, "0 numbers of columns seen"),
        ({"logits": 2}, "logits of 2: each row has one"),
        ({"lengths": (64,), "visible": (65,)}, "of 64 columns that sees 65, with room for 64"),
        ({"lengths": (-1,)}, "a text of -1 columns"),
        ({"visible": (5,)}, "a text of 5 columns that sees 5"),
        ({"columns": 200}, "in a cache of 128, whose pages are those of one of 200"),
        ({"keys": [x.half() for x in keys]}, "it must be contiguous, torch.float16"),
    ):
        with pytest.raises(ValueError, match=message):
            step(**change)
