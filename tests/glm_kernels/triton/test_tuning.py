"""Which config a kernel is launched with: override, table of the GPU, built-in choice, default."""

from __future__ import annotations

import json

import pytest
import torch

from glm_kernels.triton import tuning

CPU = torch.device("cpu")
OTHER = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 1, "num_stages": 1}


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Give a function that makes the environment name a file with this text."""

    def write(text: str) -> None:
        path = tmp_path / "table.json"
        path.write_text(text)
        monkeypatch.setenv(tuning.TABLE_VARIABLE, str(path))
        tuning._chosen.cache_clear()

    yield write
    tuning._chosen.cache_clear()


def test_default_is_taken_when_no_table_knows_the_shape():
    assert tuning.lookup("attention_forward", "h128", CPU)["BLOCK_M"] == 128
    unknown = tuning.lookup("attention_forward", "h1024w", CPU)
    assert unknown == tuning.lookup("attention_forward", "default", CPU)


def test_one_stage_is_taken_when_the_gpu_is_of_amd(monkeypatch):
    choose = tuning._chosen.__wrapped__  # without its cache
    assert choose("attention_forward", "h128", CPU)["num_stages"] == 3
    monkeypatch.setattr(torch.version, "hip", "7.0")
    config = choose("attention_forward", "h128", CPU)
    assert config["num_stages"] == 1 and config["BLOCK_M"] == 128


def test_table_of_this_device_wins_over_the_default(table):
    table(json.dumps({"device": "cpu", "configs": {"attention_forward": {"h64": OTHER}}}))
    assert tuning.lookup("attention_forward", "h64", CPU) == OTHER
    assert tuning.lookup("attention_forward", "h128", CPU)["BLOCK_M"] == 128


def test_override_wins_over_everything_and_ends_with_its_block():
    before = tuning.lookup("attention_forward", "h64", CPU)
    with tuning.use_config("attention_forward", OTHER):
        with tuning.use_config("attention_forward", {**OTHER, "BLOCK_M": 32}):
            assert tuning.lookup("attention_forward", "h64", CPU)["BLOCK_M"] == 32
        assert tuning.lookup("attention_forward", "h64", CPU) == OTHER
    assert tuning.lookup("attention_forward", "h64", CPU) == before


def test_every_choice_is_a_candidate_and_none_comes_twice():
    for op in tuning._DEFAULTS:
        candidates = tuning.candidates(op)
        assert all(tuning.lookup(op, shape, CPU) in candidates for shape in tuning.shapes(op))
        assert all(candidates.count(config) == 1 for config in candidates)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no table of tuned kernels .* write it again with `glm bench kernels --tune`"),
        ('{"device": "cpu"}', "is no table of tuned kernels"),
        ('{"device": "H9", "configs": {}}', "was measured on H9, but this is cpu: write one here"),
    ],
)
def test_table_is_refused_when_it_is_broken_or_of_another_gpu(table, text, message):
    table(text)
    with pytest.raises(ValueError, match=message):
        tuning.lookup("attention_forward", "h64", CPU)
