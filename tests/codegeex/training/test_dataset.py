from __future__ import annotations

import argparse
import inspect

import numpy as np
import pytest

from codegeex.testing import tiny_code_tokenizer
from codegeex.training.config import CodeDataConfig
from codegeex.training.dataset import CodeDataset
from glm_core.data.batch import IGNORE
from glm_core.data.shards import Shard, ShardWriter

SOURCE = inspect.getsource(argparse)
TOKENIZER = tiny_code_tokenizer()
PREFIX, SUFFIX, MIDDLE = (
    TOKENIZER.token_id(f"<|code_{name}|>") for name in ("prefix", "suffix", "middle")
)


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """Documents of 5 to 4,000 characters."""
    folder = tmp_path_factory.mktemp("shard")
    writer = ShardWriter(folder, "train", TOKENIZER.vocab_size, TOKENIZER.fingerprint())
    start = 0
    for size in [5, 4000, 700, 40, 3000, 1200, 2500, 300, 3800]:
        writer.add([*TOKENIZER.encode(SOURCE[start : start + size]), TOKENIZER.eos_id])
        start += size
    writer.close()
    return Shard(folder, "train")


def dataset(shard, **settings):
    return CodeDataset(CodeDataConfig(seq_length=256, **settings), TOKENIZER, shard)


def holes(sample):
    """The (prefix, middle, suffix) of each whole hole in a row written as spm."""
    row = [*sample.input_ids.tolist(), sample.labels[-1]]
    found = []
    for begin in np.flatnonzero(np.asarray(row) == SUFFIX):
        rest = row[begin:]
        if MIDDLE in rest and TOKENIZER.eos_id in rest[rest.index(MIDDLE) :]:
            pre, mid = rest.index(PREFIX), rest.index(MIDDLE)
            end = rest.index(TOKENIZER.eos_id, mid)
            parts = rest[pre + 1 : mid], rest[mid + 1 : end], rest[1:pre]
            found.append(tuple(TOKENIZER.decode(part) for part in parts))
    return found


@pytest.mark.parametrize("fim", ["spm", "psm"])
def test_rows_fit_and_labels_follow_when_read(shard, fim):
    data = dataset(shard, fim=fim, fim_rate=0.7)
    for index in range(60):
        sample = data[index]
        assert 1 < len(sample) <= 256
        known = sample.labels != IGNORE
        np.testing.assert_array_equal(
            sample.labels[:-1][known[:-1]], sample.input_ids[1:][known[:-1]]
        )
        missing = sample.input_ids[1:][~known[:-1]]
        assert set(missing.tolist()) <= {PREFIX, SUFFIX, MIDDLE}
        assert sample.segments == ((len(sample), 0),)


def test_parts_of_a_hole_are_text_of_the_document_when_joined(shard):
    data = dataset(shard, fim_rate=1.0)
    found = [hole for index in range(60) for hole in holes(data[index])]
    assert len(found) > 50
    assert all(before + middle + behind in SOURCE for before, middle, behind in found)


def test_no_hole_is_cut_off_when_pieces_fill_a_row(shard):
    """Every row that has a middle has its end, but for a last piece read from left to right."""
    data = dataset(shard, fim_rate=1.0)
    for index in range(60):
        row = [*data[index].input_ids.tolist(), int(data[index].labels[-1])]
        assert row.count(SUFFIX) == row.count(PREFIX) == row.count(MIDDLE)
        assert row.count(TOKENIZER.eos_id) >= row.count(MIDDLE)


def test_sample_depends_on_its_number_alone_when_read_again(shard):
    first, second = dataset(shard, fim_rate=0.5), dataset(shard, fim_rate=0.5)
    rows = [first[index].input_ids for index in range(40)]
    for index in reversed(range(40)):
        np.testing.assert_array_equal(second[index].input_ids, rows[index])


def test_holes_differ_when_a_document_comes_again(shard):
    data = dataset(shard, fim_rate=1.0)
    epoch = data.samples_per_epoch
    early = {hole for index in range(epoch) for hole in holes(data[index])}
    late = {hole for index in range(epoch, 2 * epoch) for hole in holes(data[index])}
    assert early and late and not early & late


def test_share_of_holes_is_that_asked_for_when_counted(tmp_path):
    writer = ShardWriter(tmp_path, "train", TOKENIZER.vocab_size, TOKENIZER.fingerprint())
    writer.add([*TOKENIZER.encode(SOURCE), TOKENIZER.eos_id])  # a row is a piece of one document
    writer.close()
    for rate in (0.0, 0.3, 1.0):
        data = dataset(Shard(tmp_path, "train"), fim_rate=rate)
        share = np.mean([MIDDLE in data[index].input_ids for index in range(500)])
        assert abs(share - rate) < 0.08  # 4 standard deviations


def test_documents_do_not_see_each_other_when_masked(shard):
    data = dataset(shard, fim_rate=0.5, document_mask=True)
    several = 0
    for index in range(60):
        sample = data[index]
        assert sum(length for length, _ in sample.segments) == len(sample)
        several += len(sample.segments) > 1
        start = 0
        for length, _ in sample.segments:
            positions = sample.position_ids[0, start : start + length]
            np.testing.assert_array_equal(positions, np.arange(length))
            start += length
            if start < len(sample):
                assert sample.labels[start - 1] == IGNORE
    assert several >= 5


def test_error_names_both_numbers_when_the_split_is_too_small(shard):
    with pytest.raises(ValueError, match="tokens, fewer than one row of data.seq_length=65536"):
        CodeDataset(CodeDataConfig(seq_length=65536), TOKENIZER, shard)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seq_length": 8}, "data.seq_length=8 must be at least 64"),
        ({"fim_rate": 1.5}, "data.fim_rate=1.5 must be between 0 and 1"),
        ({"line": -1.0}, "data.line=-1.0 must be at least 0"),
        ({"fim": "smp"}, "fim format 'smp' is unknown: did you mean spm"),
        ({"workers": -1}, "data.workers=-1 must be at least 0"),
        (
            {"random": 0.0, "line": 0.0, "lines": 0.0, "block": 0.0},
            "weights of all holes .* are 0: raise one",
        ),
    ],
)
def test_error_names_the_setting_when_it_is_out_of_bounds(settings, message):
    with pytest.raises(ValueError, match=message):
        CodeDataConfig(**settings)
