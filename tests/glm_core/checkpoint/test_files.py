from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from glm_core.checkpoint.files import (
    CheckpointError,
    publish_folder,
    read_json,
    read_safetensors,
    write_safetensors,
)

TENSORS = {
    "bytes": torch.arange(3, dtype=torch.uint8),
    "bf16": torch.randn(3, 5).bfloat16(),
    "transposed": torch.randn(4, 2).T,
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(0, 3),
    "int8": torch.tensor([-127, 5], dtype=torch.int8),
    "half": torch.randn(2).half(),
    "flag": torch.tensor([True, False]),
    "long": torch.tensor(2**40),
    "double": torch.randn(2, dtype=torch.float64),
}


def test_library_reads_same_tensors_when_written_by_us(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    digest = write_safetensors(path, TENSORS, {"format": "pt"})
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    theirs = load_file(path)
    assert theirs.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert theirs[name].dtype == tensor.dtype and torch.equal(theirs[name], tensor), name
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_we_read_same_tensors_when_written_by_library(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in TENSORS.items()}, path)
    ours = read_safetensors(path, "")
    assert all(torch.equal(ours[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("keep", [0, 7, 40, -1])
def test_error_names_file_and_remedy_when_truncated(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"x.safetensors is damaged or .*; copy it again"):
        read_safetensors(path, "copy it again")


def test_error_names_file_when_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x.safetensors is missing; copy"):
        read_safetensors(tmp_path / "x.safetensors", "copy it")
    with pytest.raises(CheckpointError, match=r"x.json is missing; copy"):
        read_json(tmp_path / "x.json", "copy it")


def test_error_names_file_when_json_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(CheckpointError, match=r"x.json is damaged or truncated .*; copy"):
        read_json(tmp_path / "x.json", "copy it")


def test_old_folder_is_replaced_whole_when_published(tmp_path: Path) -> None:
    for name, file in (("final", "old"), ("temporary", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(file)
    publish_folder(tmp_path / "temporary", tmp_path / "final")
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    assert [path.name for path in (tmp_path / "final").iterdir()] == ["new"]


def test_old_folder_stays_when_publishing_fails(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "old").write_text("old")
    with pytest.raises(OSError):
        publish_folder(tmp_path / "absent", tmp_path / "final")
    assert (tmp_path / "final" / "old").is_file()
