from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from glm_core.train.metrics_log import append_metrics, read_metrics, truncate_metrics


def test_later_and_broken_rows_go_when_truncated(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (1, 5, 10, 15):
        append_metrics(path, {"step": step, "loss": 1.0 / step})
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"step": 20, "lo')
    truncate_metrics(path, 10)
    assert [row["step"] for row in read_metrics(path)] == [1, 5, 10]
    append_metrics(path, {"step": 11})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 5, 10, 11]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_nothing_is_written_when_there_is_no_file(tmp_path: Path) -> None:
    truncate_metrics(tmp_path / "metrics.jsonl", 10)
    assert list(tmp_path.iterdir()) == [] and read_metrics(tmp_path / "metrics.jsonl") == []


def test_row_is_valid_json_when_value_is_not_finite(tmp_path: Path) -> None:
    append_metrics(tmp_path / "m", {"step": 1, "loss": float("nan"), "x": float("inf")})
    assert read_metrics(tmp_path / "m") == [{"step": 1, "loss": None, "x": None}]


def test_rows_stay_and_the_file_is_named_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, {"step": 1})

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    monkeypatch.setattr("builtins.open", full)
    message = r"cannot write .*metrics\.jsonl \(No space left on device\).*free some space"
    with pytest.raises(OSError, match=message):
        truncate_metrics(path, 0)
    with pytest.raises(OSError, match=message):
        append_metrics(path, {"step": 2})
    monkeypatch.undo()
    assert [row["step"] for row in read_metrics(path)] == [1]
