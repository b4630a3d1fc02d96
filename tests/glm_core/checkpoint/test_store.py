from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.store import CheckpointStore

STATE = {"step": 3, "nested": {"loss": 0.1, "nothing": None}}


def parts(fill: float = 1.0) -> dict[str, dict[str, Tensor]]:
    return {
        "model": {"weight": torch.full((3, 4), fill)},
        "optimizer": {"step.weight": torch.tensor(fill), "exp_avg.weight": torch.zeros(3, 4)},
    }


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints", keep_last=2)
    for step in (1, 2, 3):
        store.save(step, parts(step), STATE)
    return store


def test_newest_comes_back_exactly_when_loaded(store: CheckpointStore) -> None:
    checkpoint = store.load_latest()
    assert checkpoint is not None
    assert checkpoint.state == STATE and checkpoint.path.name == "step-00000003"
    expected = parts(3)
    assert checkpoint.parts.keys() == expected.keys()
    for part, tensors in expected.items():
        assert all(torch.equal(checkpoint.parts[part][n], t) for n, t in tensors.items())


def test_none_is_loaded_when_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "absent").load_latest() is None


def test_oldest_are_deleted_when_more_than_keep_last(store: CheckpointStore) -> None:
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == ["step-00000002", "step-00000003"]
    files = sorted(path.name for path in store.path(3).iterdir())
    assert files == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", "cut", r"model.safetensors is truncated or damaged: \d+ bytes"),
        ("optimizer.safetensors", "flip", r"optimizer.safetensors is damaged: its sha256"),
        ("state.json", "flip", r"state.json is damaged: its sha256"),
        ("model.safetensors", "delete", r"model.safetensors is missing"),
        ("manifest.json", "cut", r"manifest.json is damaged"),
        ("manifest.json", "delete", r"manifest.json is missing"),
    ],
)
def test_error_names_file_and_remedy_when_damaged(
    store: CheckpointStore, name: str, damage: str, message: str
) -> None:
    path = store.path(3) / name
    data = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        data[-2] ^= 1
        path.write_bytes(data if damage == "flip" else data[:-2])
    remedy = r".*; delete the folder .*step-00000003 .*to resume from step-00000002"
    with pytest.raises(CheckpointError, match=message + remedy):
        store.load_latest()


def test_error_names_version_when_format_is_unknown(store: CheckpointStore) -> None:
    path = store.path(3) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 9}))
    with pytest.raises(CheckpointError, match="version 9; this program reads .* version 1"):
        store.load_latest()


def test_leftovers_are_ignored_and_cleaned_when_process_was_killed(store: CheckpointStore) -> None:
    for name in (".writing-step-00000004-77", ".deleted-step-00000001"):
        (store.folder / name).mkdir()
    assert store.steps() == [2, 3]
    store.clean()
    assert store.steps() == [2, 3] and len(list(store.folder.iterdir())) == 2


def test_nothing_saved_is_lost_when_disk_is_full(tmp_path: Path) -> None:
    """A file-size limit in a child makes write() fail as on a full disk, half-way through."""
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(1, parts(1), STATE)
    code = """
import signal, sys, torch
from pathlib import Path
from glm_core.checkpoint.store import CheckpointStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
big = {"model": {"w": torch.ones(100_000)}, "optimizer": {"w": torch.ones(10)}}
try:
    CheckpointStore(Path(sys.argv[1]), keep_last=1).save(2, big, {})
except OSError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert "cannot save the checkpoint of step 2" in done.stdout, done.stderr
    assert "File too large" in done.stdout and "the newest is" in done.stdout
    assert "Free some space" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert store.load_latest() is not None


def test_error_is_clear_when_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = CheckpointStore(tmp_path / "file" / "checkpoints")
    with pytest.raises(OSError, match="cannot save the checkpoint of step 1 .*there are none yet"):
        store.save(1, parts(), STATE)
