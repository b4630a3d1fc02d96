import json

import numpy as np
import pytest
from scipy import stats

from glm_core.data.batch import IGNORE
from glm_core.data.instructions import InstructionSet
from glm_core.data.layout import SpecialIds


@pytest.fixture
def ids(tokenizer):
    return SpecialIds.of(tokenizer)


def make(ids, prompt, response):
    return InstructionSet([[(np.array(prompt), np.array(response))]], ids)


def sample_of(ids, prompt, response, room, causal=False):
    return make(ids, prompt, response).sample(room, np.random.default_rng(0), causal)


def test_response_is_the_filling_of_a_gmask_when_blanks_are_trained(ids):
    sample = sample_of(ids, [1, 2], [3, 4], 32)
    x = IGNORE
    assert sample.input_ids.tolist() == [ids.cls, 1, 2, ids.gmask, ids.sop, 3, 4]
    assert sample.labels.tolist() == [x, x, x, x, 3, 4, ids.eop]
    assert sample.position_ids.tolist() == [[0, 1, 2, 3, 3, 3, 3], [0, 0, 0, 0, 1, 2, 3]]
    assert sample.segments == ((7, 4),)


def test_only_the_response_has_labels_when_causal(ids):
    sample = sample_of(ids, [1, 2], [3, 4], 32, causal=True)
    assert sample.input_ids.tolist() == [ids.cls, 1, 2, 3, 4]
    assert sample.labels.tolist() == [IGNORE, IGNORE, 3, 4, ids.eos]
    assert sample.segments == ((5, 0),)


def test_response_is_whole_when_the_prompt_is_empty(ids):
    assert sample_of(ids, [], [3], 16).labels.tolist() == [IGNORE, IGNORE, 3, ids.eop]


@pytest.mark.parametrize("causal", [False, True])
def test_prompt_loses_its_beginning_when_the_row_is_short(ids, causal):
    sample = sample_of(ids, list(range(50)), [90, 91], 16, causal)
    assert len(sample) <= 16
    kept = sample.input_ids[1 : 1 + 11].tolist()
    assert kept == list(range(39, 50))
    assert (ids.eos if causal else ids.eop) in sample.labels


@pytest.mark.parametrize("causal", [False, True])
def test_no_end_is_learnt_when_the_response_is_cut(ids, causal):
    sample = sample_of(ids, [1, 2, 3, 4, 5], list(range(50, 90)), 16, causal)
    assert len(sample) <= 16
    labels = sample.labels[sample.labels != IGNORE].tolist()
    assert labels == list(range(50, 50 + len(labels)))
    assert len(labels) >= 9


def test_tasks_are_drawn_by_damped_size_when_there_are_several(ids):
    tasks = [
        [(np.array([1]), np.array([50]))] * 10,
        [(np.array([2]), np.array([50]))] * 1000,
        [(np.array([3]), np.array([50]))] * 300_000,
    ]
    instructions = InstructionSet(tasks, ids)
    rng = np.random.default_rng(0)
    drawn = [int(instructions.sample(16, rng, False).input_ids[1]) for _ in range(6000)]
    weights = np.array([10, 1000, 200_000]) ** 0.8
    observed = np.array([drawn.count(task) for task in (1, 2, 3)])
    expected = weights / weights.sum() * len(drawn)
    merged = np.array([observed[:2].sum(), observed[2]])
    assert stats.chisquare(merged, [expected[:2].sum(), expected[2]]).pvalue > 0.001


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_files_of_a_folder_are_tasks_when_loaded(tmp_path, tokenizer):
    write(tmp_path / "a.jsonl", [{"prompt": "The block", "response": " wraps"}])
    write(tmp_path / "b.jsonl", [{"prompt": "The file", "response": " opens"}])
    loaded = InstructionSet.load(str(tmp_path), tokenizer)
    seen = {
        tokenizer.decode(loaded.sample(32, np.random.default_rng(i), False).input_ids)
        for i in range(20)
    }
    assert seen == {"The block wraps", "The file opens"}


def test_markers_stay_text_when_a_prompt_spells_them(tmp_path, tokenizer):
    write(tmp_path / "a.jsonl", [{"prompt": "The [MASK]", "response": "x"}])
    loaded = InstructionSet.load(str(tmp_path / "a.jsonl"), tokenizer)
    sample = loaded.sample(32, np.random.default_rng(0), False)
    assert tokenizer.mask_id not in sample.input_ids


@pytest.mark.parametrize(
    "record", [{"prompt": "x"}, {"response": "x"}, {"prompt": "x", "response": ""}, {}]
)
def test_error_names_the_line_when_a_field_is_missing(tmp_path, tokenizer, record):
    write(tmp_path / "a.jsonl", [{"prompt": "a", "response": "b"}, record])
    with pytest.raises(ValueError, match=r'a\.jsonl:2 needs the strings "prompt" and "response"'):
        InstructionSet.load(str(tmp_path), tokenizer)


def test_error_names_the_setting_when_there_is_no_file(tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"data\.instruction_source='.*' is no jsonl file"):
        InstructionSet.load(str(tmp_path), tokenizer)


def test_error_names_the_setting_when_files_are_empty(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"data\.instruction_source='.*' has no examples"):
        InstructionSet.load(str(tmp_path), tokenizer)
