"""Which config a kernel is launched with: override, table of the GPU, built-in choice, default."""

from __future__ import annotations

import torch

from glm_kernels import measured
from glm_kernels.triton import tuning

CPU = torch.device("cpu")
OTHER = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 1, "num_stages": 1}


def test_default_is_taken_when_no_table_knows_the_shape():
    assert tuning.lookup("attention_forward", "h128", CPU)["BLOCK_M"] == 128
    unknown = tuning.lookup("attention_forward", "h1024w", CPU)
    assert unknown == tuning.lookup("attention_forward", "default", CPU)


def test_one_stage_is_taken_when_the_gpu_is_of_amd(monkeypatch):
    choose = tuning.built_in
    assert choose("attention_forward", "h128", CPU)["num_stages"] == 3
    monkeypatch.setattr(torch.version, "hip", "7.0")
    config = choose("attention_forward", "h128", CPU)
    assert config["num_stages"] == 1 and config["BLOCK_M"] == 128


def test_what_was_measured_here_wins_over_the_default_and_is_read_once(tmp_path, monkeypatch):
    before = tuning.lookup("attention_forward", "h64", CPU)
    path = tmp_path / "table.json"
    monkeypatch.setenv(measured.TABLE_VARIABLE, str(path))
    table = measured.Table(configs={"attention_forward": {"h64": OTHER}})
    measured.write_table(table, CPU, path)
    assert tuning.lookup("attention_forward", "h64", CPU) == OTHER
    assert tuning.lookup("attention_forward", "h128", CPU)["BLOCK_M"] == 128
    assert tuning.built_in("attention_forward", "h64", CPU) == before
    path.unlink()
    assert tuning.lookup("attention_forward", "h64", CPU) == OTHER
    monkeypatch.setenv(measured.TABLE_VARIABLE, measured.OFF)
    measured.forget()
    assert tuning.lookup("attention_forward", "h64", CPU) == before


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
