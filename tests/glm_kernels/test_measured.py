"""Tables of what was measured: written whole, found, refused where they do not fit."""

from __future__ import annotations

import json
import logging
import os

import pytest
import torch

from glm_kernels import measured

CPU = torch.device("cpu")
TABLE = measured.Table(
    configs={"attention_forward": {"h64": {"BLOCK_M": 16, "num_warps": 1}}},
    rankings={"attention": {"prompt full single 128": ["eager", "sdpa"]}},
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Have tables found in a folder of the test's own."""
    monkeypatch.delenv(measured.TABLE_VARIABLE)
    monkeypatch.setenv("GLM_CACHE", str(tmp_path))
    measured.forget()
    yield
    measured.forget()


def change(path, **fields):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **fields}))
    measured.forget()


def test_table_is_found_by_itself_after_it_was_written(tmp_path):
    assert measured.table_of(CPU) == measured.Table()
    path = measured.default_path(CPU)
    measured.write_table(TABLE, CPU, path)
    assert path.parent == tmp_path / "tuning"
    assert measured.table_of(CPU) == TABLE
    assert measured.ranking("attention", "prompt full single 128", CPU) == ["eager", "sdpa"]
    assert measured.ranking("attention", "prompt full single 512", CPU) == []


def test_file_is_read_once():
    measured.write_table(TABLE, CPU, measured.default_path(CPU))
    first = measured.table_of(CPU)
    measured.default_path(CPU).unlink()
    assert measured.table_of(CPU) is first


def test_table_of_another_number_of_threads_is_another_file():
    measured.write_table(TABLE, CPU, measured.default_path(CPU))
    torch.set_num_threads(torch.get_num_threads() + 1)
    assert measured.table_of(CPU) == measured.Table()


def test_named_table_wins_and_off_means_none(tmp_path, monkeypatch):
    measured.write_table(TABLE, CPU, measured.default_path(CPU))
    other = measured.Table(rankings={"attention": {"prompt full single 128": ["sdpa"]}})
    measured.write_table(other, CPU, tmp_path / "other.json")
    monkeypatch.setenv(measured.TABLE_VARIABLE, str(tmp_path / "other.json"))
    assert measured.table_of(CPU) == other
    monkeypatch.setenv(measured.TABLE_VARIABLE, "off")
    measured.forget()
    assert measured.table_of(CPU) == measured.Table()


def test_table_holds_inside_the_block_alone():
    with measured.use_table(TABLE):
        with measured.use_table(measured.Table()):
            assert measured.table_of(CPU) == measured.Table()
        assert measured.table_of(CPU) is TABLE
    assert measured.table_of(CPU) == measured.Table()


BAD = [
    ({"format": 0}, "is no table of measured kernels .*format 0, not 1"),
    ({"configs": []}, "is no table of measured kernels"),
    ({"configs": {"op": {"h64": {"BLOCK_M": "16"}}}}, "'16' is no whole number"),
    ({"rankings": {"attention": {"case": [1]}}}, "1 is no name"),
    ({"device": "H9"}, "was measured on H9, but this is .* threads"),
    ({"torch": "1.0"}, "was measured with torch 1.0, but this is"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_named_table_that_does_not_fit_is_refused_with_the_remedy(
    fields, message, tmp_path, monkeypatch
):
    path = tmp_path / "named.json"
    measured.write_table(TABLE, CPU, path)
    change(path, **fields)
    monkeypatch.setenv(measured.TABLE_VARIABLE, str(path))
    remedy = "measure again with `glm bench kernels --tune`, or unset the variable"
    with pytest.raises(ValueError, match=f"GLM_KERNELS_TUNING names .*{message}.*; {remedy}"):
        measured.table_of(CPU)


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_found_table_that_does_not_fit_is_passed_over_with_one_warning(fields, message, caplog):
    path = measured.default_path(CPU)
    measured.write_table(TABLE, CPU, path)
    change(path, **fields)
    with caplog.at_level(logging.WARNING, logger="glm_kernels.measured"):
        for _ in range(3):
            assert measured.table_of(CPU) == measured.Table()
    (record,) = caplog.records
    assert "measure again with `glm bench kernels --tune`, or delete" in record.getMessage()


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\x80"])
def test_file_that_is_no_table_is_passed_over(text, caplog):
    path = measured.default_path(CPU)
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    assert measured.table_of(CPU) == measured.Table()
    assert "is no table of measured kernels" in caplog.text


def test_missing_named_table_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(measured.TABLE_VARIABLE, str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="none.json is no table .*FileNotFoundError"):
        measured.table_of(CPU)


def test_table_stays_as_it_was_when_writing_fails(monkeypatch):
    path = measured.default_path(CPU)
    measured.write_table(TABLE, CPU, path)
    before = path.read_bytes()

    def full(handle):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        measured.write_table(measured.Table(), CPU, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
