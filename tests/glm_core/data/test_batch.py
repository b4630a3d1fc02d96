import numpy as np
import pytest
import torch

from glm_core.attention.spec import Causal, Packed, PrefixLM
from glm_core.data.batch import IGNORE, Sample, collate


def make_sample(size, segments=None):
    ids = np.arange(1, size + 1)
    labels = np.where(ids % 2 == 0, ids, IGNORE)
    return Sample(ids, labels, np.stack([ids - 1, ids * 0]), segments or ((size, 2),))


def test_rows_are_padded_on_the_right_when_samples_are_short():
    batch = collate([make_sample(3), make_sample(5)], 6, pad_id=9)
    assert batch.input_ids.tolist() == [[1, 2, 3, 9, 9, 9], [1, 2, 3, 4, 5, 9]]
    assert batch.labels.tolist() == [
        [IGNORE, 2, IGNORE, IGNORE, IGNORE, IGNORE],
        [IGNORE, 2, IGNORE, 4, IGNORE, IGNORE],
    ]
    assert batch.position_ids.tolist() == [
        [[0, 1, 2, 0, 0, 0], [0] * 6],
        [[0, 1, 2, 3, 4, 0], [0] * 6],
    ]
    assert batch.input_ids.dtype == batch.labels.dtype == batch.position_ids.dtype == torch.int64


def test_counts_leave_padding_out_when_asked():
    batch = collate([make_sample(3), make_sample(5)], 6, pad_id=2)
    assert batch.num_tokens == 8
    assert int((batch.labels != IGNORE).sum()) == 3


@pytest.mark.parametrize(
    ("segments", "mask"),
    [
        ([((4, 0),), ((4, 0),)], Causal()),
        ([((4, 3),), ((4, 0),)], PrefixLM((3, 0))),
        ([((4, 3),), ((2, 1), (2, 0))], Packed((((4, 3),), ((2, 1), (2, 0))))),
    ],
)
def test_mask_is_the_simplest_kind_when_rows_allow_it(segments, mask):
    assert collate([make_sample(4, row) for row in segments], 4, 0).mask == mask


def test_batch_moves_whole_when_sent_to_a_device():
    batch = collate([make_sample(3)], 4, 0).to("meta")
    assert {batch.input_ids.device, batch.labels.device, batch.position_ids.device} == {
        torch.device("meta")
    }


def test_error_tells_both_lengths_when_a_sample_is_too_long():
    with pytest.raises(ValueError, match="a sample of 5 tokens does not fit seq_length=4"):
        collate([make_sample(5)], 4, 0)


def test_error_names_batch_size_when_there_are_no_samples():
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        collate([], 4, 0)
