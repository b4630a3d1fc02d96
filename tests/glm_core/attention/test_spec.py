"""Masks as values: their tensors, their equality, their errors."""

import pytest
import torch

from glm_core.attention import (
    Causal,
    Full,
    LeftPadded,
    Packed,
    Prefixed,
    PrefixLM,
    RightPadded,
    materialize,
)

from .numpy_oracle import visible_matrix

CPU = torch.device("cpu")


def drawn(spec, batch, columns):
    """The rows of a mask as strings, 1 where visible."""
    mask = materialize(spec, batch, columns, columns, 0, CPU)
    return [["".join(map(str, row)) for row in matrix[0]] for matrix in mask.int().tolist()]


def test_causal_sees_the_past():
    assert drawn(Causal(), 2, 3) == [["100", "110", "111"]]


def test_full_sees_everything():
    assert drawn(Full(), 2, 2) == [["11", "11"]]


def test_prefix_is_seen_by_all():
    assert drawn(PrefixLM((2, 0)), 2, 4) == [
        ["1100", "1100", "1110", "1111"],
        ["1000", "1100", "1110", "1111"],
    ]


def test_packed_samples_do_not_see_each_other():
    mask = Packed((((2, 1), (3, 2)),))
    # Columns 0-1, 2-4, and one of padding.
    assert drawn(mask, 1, 6) == [["100000", "110000", "001100", "001100", "001110", "000001"]]


def test_left_padding_sees_only_itself():
    assert drawn(LeftPadded(PrefixLM((2,)), (1,)), 1, 4) == [["1000", "0110", "0110", "0111"]]


def test_right_padding_sees_only_itself():
    assert drawn(RightPadded(Full(), (2,)), 1, 4) == [["1100", "1100", "0010", "0001"]]


def test_prefix_columns_are_seen_by_all_and_see_only_themselves():
    assert drawn(Prefixed(Causal(), 2), 2, 4) == [["1100", "1100", "1110", "1111"]]
    padded = Prefixed(LeftPadded(Causal(), (1,)), 1)
    assert drawn(padded, 1, 4) == [["1000", "1100", "1010", "1011"]]


@pytest.mark.parametrize("q_offset", [0, 2, 6])
def test_queries_stand_at_their_offset_when_there_is_a_cache(q_offset):
    spec = LeftPadded(RightPadded(PrefixLM((3, 1)), (5, 4)), (0, 2))
    mask = materialize(spec, 2, 7 - q_offset, 7, q_offset, CPU)
    assert mask.shape == (2, 1, 7 - q_offset, 7)
    assert mask.dtype == torch.bool
    assert (mask[:, 0].numpy() == visible_matrix(spec, 2, 7 - q_offset, 7, q_offset)).all()


def test_no_row_is_empty_when_padded():
    for spec in (LeftPadded(Causal(), (4, 0)), RightPadded(Full(), (0, 4))):
        assert materialize(spec, 2, 4, 4, 0, CPU).any(-1).all()


@pytest.mark.parametrize(
    "make",
    [
        Causal,
        Full,
        lambda: PrefixLM((1, 2)),
        lambda: Packed((((2, 1), (3, 0)), ((5, 5),))),
        lambda: LeftPadded(PrefixLM((1, 2)), (0, 3)),
        lambda: RightPadded(Causal(), (4, 5)),
        lambda: Prefixed(PrefixLM((1, 2)), 3),
    ],
)
def test_masks_are_equal_and_hash_alike_when_their_values_are(make):
    assert make() == make()
    assert hash(make()) == hash(make())


def test_masks_differ_when_a_value_does():
    masks = {
        Causal(),
        Full(),
        PrefixLM((1, 2)),
        PrefixLM((2, 1)),
        LeftPadded(Causal(), (1, 2)),
        RightPadded(Causal(), (1, 2)),
        LeftPadded(Full(), (1, 2)),
        Prefixed(Causal(), 1),
        Prefixed(Causal(), 2),
        Prefixed(Full(), 1),
    }
    assert len(masks) == 10


def test_rows_is_none_when_every_row_is_alike():
    assert Causal().rows is None
    assert Full().rows is None
    assert PrefixLM((1, 2, 3)).rows == 3
    assert Prefixed(Causal(), 2).rows is None
    assert Prefixed(PrefixLM((1, 2, 3)), 2).rows == 3
    assert materialize(Causal(), 5, 2, 2, 0, CPU).shape[0] == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            PrefixLM((1, 2, 3)),
            r"mask PrefixLM describes 3 rows but the batch has 2: build the mask",
        ),
        (Packed((((4, 0),),)), r"mask Packed describes 1 rows but the batch has 2"),
        (LeftPadded(Causal(), (0,)), r"mask LeftPadded describes 1 rows but the batch has 2"),
        (LeftPadded(PrefixLM((1, 2, 3)), (0, 1)), r"mask PrefixLM describes 3 rows"),
        (RightPadded(LeftPadded(Full(), (1,)), (4, 4)), r"mask LeftPadded describes 1 rows"),
        (
            Prefixed(LeftPadded(PrefixLM((1, 2, 3)), (0, 1)), 2),
            r"mask PrefixLM describes 3 rows",
        ),
    ],
)
def test_other_number_of_rows_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        materialize(spec, 2, 4, 4, 0, CPU)
