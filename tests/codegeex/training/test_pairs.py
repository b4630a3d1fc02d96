from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegeex.training.config import CodeDataConfig
from codegeex.training.pairs import PairDataset
from glm_core.data.batch import IGNORE
from glm_core.data.shards import Shard, ShardWriter


def dataset(folder, pairs, seq_length=64, name="train"):
    """Pairs given as (tokens of the prompt, tokens of the code); every token is unique."""
    writer = ShardWriter(folder, name, 1 << 17, "none")
    first = 0
    for prompt, code in pairs:
        writer.add(range(first, first + prompt + code))
        first += prompt + code
    writer.close()
    prompts = np.array([prompt for prompt, _ in pairs])
    return PairDataset(CodeDataConfig(seq_length=seq_length), Shard(folder, name), prompts)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 150), st.integers(1, 200)), min_size=1, max_size=12).filter(
        lambda pairs: any(sum(pair) > 1 for pair in pairs)
    )
)
def test_all_code_is_learnt_once_and_no_prompt_ever_when_read(tmp_path_factory, pairs):
    data = dataset(tmp_path_factory.mktemp("pairs"), pairs)
    learnt: list[int] = []
    for index in range(data.samples_per_epoch):
        sample = data[index]
        assert len(sample) <= 64
        assert sum(length for length, _ in sample.segments) == len(sample)
        learnt += sample.labels[sample.labels != IGNORE].tolist()
    expected, first = set(), 0
    for prompt, code in pairs:
        # the very first token of a text that has no prompt comes after nothing
        begin = first + max(prompt, 1)
        expected |= set(range(begin, first + prompt + code))
        first += prompt + code
    # windows of a pair without a prompt begin with a token that comes after nothing
    missing = expected - set(learnt)
    assert len(learnt) == len(set(learnt)) and set(learnt) <= expected
    assert len(missing) <= sum(code // 64 for prompt, code in pairs if prompt == 0)


def test_every_window_has_the_end_of_its_prompt_when_a_pair_is_long(tmp_path):
    data = dataset(tmp_path, [(40, 200)])
    for index in range(data.samples_per_epoch):
        sample = data[index]
        known = np.flatnonzero(sample.labels != IGNORE)
        read = [*sample.input_ids[: known[0] + 1].tolist()]
        assert read == list(range(40 - len(read), 40)) and len(read) == 32


def test_pairs_stay_apart_when_they_share_a_row(tmp_path):
    sample = dataset(tmp_path, [(3, 5), (2, 6), (4, 4)])[0]
    assert sample.segments == ((7, 0), (7, 0), (7, 0))
    np.testing.assert_array_equal(sample.position_ids[0], [*range(7)] * 3)
    assert sample.labels.tolist()[:3] == [IGNORE, IGNORE, 3]


def test_order_changes_with_the_epoch_when_read_twice(tmp_path):
    data = dataset(tmp_path, [(10, 50)] * 20)
    first, second = ([data[e * 20 + i].input_ids[0] for i in range(20)] for e in (0, 1))
    assert sorted(first) == sorted(second) and first != second


@pytest.mark.parametrize("index", [0, 7, 63])
def test_sample_depends_on_its_number_alone_when_read_again(tmp_path, index):
    pairs = [(10, 50)] * 20
    one, other = dataset(tmp_path, pairs), dataset(tmp_path, pairs, name="again")
    other[5]
    np.testing.assert_array_equal(one[index].input_ids, other[index].input_ids)
