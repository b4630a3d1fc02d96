import json

import numpy as np
import pytest

from glm_core.data.batch import IGNORE
from glm_core.data.mixture import build_dataset


def weights(**chosen):
    return {mode: chosen.get(mode, 0.0) for mode in ("mask", "sentence", "gmask", "causal")}


@pytest.fixture
def make(make_config, prepared):
    return lambda **changes: build_dataset(make_config(**changes), prepared)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pack": 4},
        {"document_mask": True},
        {"short_seq_prob": 1.0},
        {"short_seq_prob": 0.5, "pack": 2, "document_mask": True},
        {"seq_length": 16},
        {"block_mask_prob": 0.2, "single_span_prob": 0.2},
        weights(causal=1.0),
    ],
)
def test_rows_keep_the_rules_when_settings_vary(make, changes):
    dataset = make(**changes)
    for index in range(150):
        sample = dataset[index]
        assert 0 < len(sample) <= dataset.config.seq_length
        assert sum(length for length, _ in sample.segments) == len(sample)
        start = 0
        for length, prefix in sample.segments:
            part = slice(start, start + length)
            assert sample.input_ids[start] == dataset.ids.cls
            assert (sample.labels[start : start + prefix] == IGNORE).all()
            assert (sample.labels[start + prefix : start + length] != IGNORE).all()
            assert sample.position_ids[0, part].max() < length
            assert length > prefix
            start += length


@pytest.mark.parametrize("changes", [{}, {"pack": 2}, {"short_seq_prob": 0.5}])
def test_sample_is_a_function_of_its_index_when_asked_in_any_order(make, changes):
    indices = [0, 7, 3, 500, 3, 41]
    forward = [make(**changes)[i].input_ids.tolist() for i in indices]
    dataset = make(**changes)
    backward = [dataset[i].input_ids.tolist() for i in reversed(indices)]
    assert forward == backward[::-1]


def test_samples_differ_when_seed_or_index_or_epoch_do(make):
    dataset = make()
    epoch = dataset.samples_per_epoch
    rows = [dataset[i].input_ids.tolist() for i in (0, 1, epoch, 2 * epoch)]
    rows.append(make(seed=6)[0].input_ids.tolist())
    assert len({tuple(row) for row in rows}) == len(rows)


def test_modes_come_by_their_weights_when_many_are_drawn(make):
    dataset = make(mask=2.0, sentence=1.0, gmask=1.0, causal=0.0)
    ids = dataset.ids
    counts = dict.fromkeys((ids.mask, ids.smask, ids.gmask), 0)
    for index in range(2000):
        context = dataset[index].input_ids
        counts[next(mask for mask in counts if mask in context)] += 1
    shares = np.array(list(counts.values())) / 2000
    # three standard deviations of a share of 0.5 are 0.034
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.034)


@pytest.mark.parametrize("mode", ["mask", "sentence", "gmask", "causal"])
def test_only_one_mode_comes_when_the_others_weigh_nothing(make, mode):
    dataset = make(**weights(**{mode: 0.3}))
    ids = dataset.ids
    masks = {"mask": ids.mask, "sentence": ids.smask, "gmask": ids.gmask}
    for index in range(100):
        row = set(dataset[index].input_ids.tolist())
        assert row & set(masks.values()) == ({masks[mode]} if mode in masks else set())


def test_all_text_is_covered_when_epochs_pass(make, prepared):
    dataset = make(**weights(causal=1.0), seq_length=64)
    wanted = set(range(prepared.train.num_tokens))
    starts = [dataset._windows._epoch_starts(epoch).copy() for epoch in range(3)]
    covered = {int(s) + i for epoch in starts for s in epoch for i in range(64)}
    assert len(wanted - covered) < 64


def test_instructions_come_by_their_ratio_when_mixed_in(make, tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "Opens 99?", "response": " Yes 99."}) + "\n")
    dataset = make(instruction_source=str(path), instruction_ratio=0.3)
    found = sum("99" in tokenizer.decode(dataset[i].input_ids) for i in range(1000))
    # three standard deviations are 43
    assert 250 < found < 350


def test_instructions_stay_out_when_the_split_is_heldout(make, tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_text(json.dumps({"prompt": "zzz", "response": "qqq"}) + "\n")
    mixed = make(instruction_source=str(path), instruction_ratio=1.0, split="heldout")
    plain = make(split="heldout")
    assert [mixed[i].input_ids.tolist() for i in range(3)] == [
        plain[i].input_ids.tolist() for i in range(3)
    ]


def test_instructions_are_causal_when_the_mode_is(make, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "Opens?", "response": " Yes."}) + "\n")
    dataset = make(**weights(causal=1.0), instruction_source=str(path), instruction_ratio=1.0)
    assert dataset[0].segments[0][1] == 0


def test_held_out_text_is_read_when_the_split_says_so(make, prepared, texts):
    dataset = make(**weights(causal=1.0), split="heldout")
    shard = prepared.heldout
    heldout = prepared.tokenizer.decode(shard.slice(0, shard.num_tokens))
    text = prepared.tokenizer.decode(dataset[0].input_ids)
    assert text.split(".")[1] in heldout


def test_fingerprint_changes_only_when_samples_do(make):
    base = make().fingerprint
    assert make(workers=2).fingerprint == base
    assert make(seed=6).fingerprint != base
    assert make(mask=0.9).fingerprint != base
    assert make(split="heldout").fingerprint != base
