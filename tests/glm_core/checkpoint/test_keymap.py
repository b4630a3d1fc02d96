"""Tables: names of layers, parts of fused matrices, shares of ranks."""

import pytest
import torch

from glm_core.checkpoint.formats import FORMATS
from glm_core.checkpoint.keymap import (
    Computed,
    Copy,
    Entry,
    Ignored,
    Split,
    cut_rows,
    entries,
    expand,
    gate_parts,
    ignores,
    qkv_parts,
    same_names,
    shape_on_rank,
    slots,
)
from glm_core.testing import tiny_config

CONFIG = tiny_config("glm-4-9b")  # 4 heads of 8, 2 of them for keys; ffn 44


def test_rows_of_a_layer_come_once_for_each_layer():
    table = expand(
        [
            Entry("a.{layer}", "b.{layer}"),
            Entry("top", ("q.0", "k.0")),
            Computed("f.{layer}", lambda config, dtype: torch.ones(1)),
            Copy("head", "top"),
            Ignored(r"x\.\d+"),
        ],
        num_layers=2,
        prefix="m.",
    )
    assert list(entries(table)) == ["a.0", "a.1", "top"]
    names = [row.theirs for row in table if not isinstance(row, Ignored)]
    assert names == ["m.b.0", "m.b.1", ("m.q.0", "m.k.0"), "m.f.0", "m.f.1", "m.head"]
    assert all(ignores(table, name) for name in ("m.x.12", "m.f.1", "m.head"))
    assert not any(ignores(table, name) for name in ("x.12", "mxx.12", "m.x.y", "m.b.0"))


def test_each_rank_has_its_share_of_every_part():
    rows = torch.arange(12).reshape(6, 2)
    shares = cut_rows(rows, [4, 2], ranks=2)
    assert [[part[:, 0].tolist() for part in share] for share in shares] == [
        [[0, 2], [8]],
        [[4, 6], [10]],
    ]


def test_parts_are_those_of_the_config():
    assert qkv_parts(CONFIG) == [32, 16, 16]
    assert gate_parts(CONFIG) == [44, 44]


@pytest.mark.parametrize(
    ("split", "parts", "shape", "expected"),
    [
        (Split.whole, None, (64, 32), (64, 32)),
        (Split.rows, None, (64, 32), (32, 32)),
        (Split.rows, qkv_parts, (64, 32), (32, 32)),
        (Split.rows, qkv_parts, (64,), (32,)),
        (Split.columns, None, (64, 32), (64, 16)),
    ],
)
def test_shape_on_a_rank_is_that_of_its_views(split, parts, shape, expected):
    entry = Entry("ours", "theirs", split, parts)
    assert shape_on_rank(entry, CONFIG, shape, ranks=2) == {"theirs": expected}
    found = list(slots(entry, CONFIG, torch.zeros(shape), ranks=2))
    assert [(rank, name) for rank, name, _ in found] == [(0, "theirs"), (1, "theirs")]
    for _, _, views in found:
        assert torch.cat(views).shape == expected


def test_views_fill_the_tensor_once_when_parts_have_names_of_their_own():
    entry = Entry("qkv", ("q", "k", "v"), Split.rows, qkv_parts)
    assert shape_on_rank(entry, CONFIG, (64, 3), 2) == {"q": (16, 3), "k": (8, 3), "v": (8, 3)}
    tensor = torch.zeros(64, 3)
    for number, (_, _, views) in enumerate(slots(entry, CONFIG, tensor, ranks=2), 1):
        for view in views:
            view += number
    # rank 0 writes q, k, v as 1, 2, 3 and rank 1 as 4, 5, 6
    expected = [1] * 16 + [4] * 16 + [2] * 8 + [5] * 8 + [3] * 8 + [6] * 8
    assert tensor[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("split", "shape", "what"),
    [(Split.rows, (9, 4), "9 rows"), (Split.columns, (4, 9), "9 columns")],
)
def test_error_names_the_parameter_when_it_cannot_be_shared(split, shape, what):
    entry = Entry("a.weight", "b.weight", split)
    message = rf"a\.weight cannot be shared by 2 tensor-parallel ranks: its {what} are no multiple"
    with pytest.raises(ValueError, match=message):
        shape_on_rank(entry, CONFIG, shape, ranks=2)


def test_every_part_must_be_shared_evenly():
    def parts(config):
        return [3, 5]

    with pytest.raises(ValueError, match="its 3 rows are no multiple of 2"):
        shape_on_rank(Entry("a", "b", Split.rows, parts), CONFIG, (8,), ranks=2)


def test_names_hold_as_many_parts_as_they_say_when_they_are_fewer_than_the_parts():
    """Queries under a name of their own, keys and values under one together."""
    entry = Entry("a", ("q", "kv"), Split.rows, qkv_parts, held=(1, 2))
    tensor = torch.arange(64 * 3).reshape(64, 3)
    assert shape_on_rank(entry, CONFIG, (64, 3), ranks=2) == {"q": (16, 3), "kv": (16, 3)}
    found = {(rank, name): views for rank, name, views in slots(entry, CONFIG, tensor, ranks=2)}
    assert [view.shape[0] for view in found[0, "kv"]] == [8, 8]
    assert torch.equal(torch.cat(found[1, "q"]), tensor[16:32])
    assert torch.equal(torch.cat(found[1, "kv"]), torch.cat([tensor[40:48], tensor[56:64]]))


@pytest.mark.parametrize("split", Split)
def test_matrix_is_turned_when_the_format_has_columns(split):
    entry, tensor = Entry("a", "b", split, transposed=True), torch.arange(8 * 4).reshape(8, 4)
    shapes = {Split.whole: (4, 8), Split.rows: (4, 4), Split.columns: (2, 8)}
    assert shape_on_rank(entry, CONFIG, (8, 4), ranks=2) == {"b": shapes[split]}
    shares = [views[0] for _, _, views in slots(entry, CONFIG, tensor, ranks=2)]
    expected = {Split.rows: tensor.t().chunk(2, dim=1), Split.columns: tensor.t().chunk(2, dim=0)}
    for share, want in zip(shares, expected.get(split, [tensor.t()] * 2), strict=True):
        assert torch.equal(share, want)


def test_difference_of_names_is_told():
    table = expand([Entry("a", "x"), Entry("b", "y")], 1)
    assert same_names(table, {"a": 1, "b": 2}) is None
    assert same_names(table, {"a": 1, "b": 2, "c": 3}) == "it has no place for c"
    assert same_names(table, {"a": 1}) == "it needs b, which the model does not have"


@pytest.mark.parametrize("format", FORMATS)
def test_no_two_rows_of_a_table_have_a_name_in_common(format):
    family = {
        "glm": "glm-base",
        "glm-hf": "glm-base",
        "chatglm": "chatglm-6b",
        "chatglm2": "chatglm2-6b",
        "glm4-hf": "glm-4-9b",
        "glm4-0414-hf": "glm-4-9b-0414",
        "llama": "llama-7b",
        "codegeex-13b-fused": "codegeex-13b",
        "codegeex-13b-mindspore": "codegeex-13b",
        "codegeex-13b-paddle": "codegeex-13b",
    }.get(format, "glm-4-9b" if format == "glm-lab" else format)
    config = tiny_config(family)
    table = expand(FORMATS[format].table(config), config.num_layers, FORMATS[format].prefix)
    names = [name for entry in entries(table).values() for name in entry.names]
    names += [row.theirs for row in table if isinstance(row, Copy | Computed)]
    assert len(names) == len(set(names))
    assert len(entries(table)) == sum(isinstance(row, Entry) for row in table)
