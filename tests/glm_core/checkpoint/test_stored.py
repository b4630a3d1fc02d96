from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glm_core.checkpoint import released
from glm_core.checkpoint.files import CheckpointError, write_safetensors
from glm_core.checkpoint.released import _load
from glm_core.checkpoint.stored import open_tensors

WEIGHT = torch.arange(7 * 6, dtype=torch.float16).view(7, 6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_safetensors(tmp_path / "m.safetensors", {"other": torch.ones(3), "w": WEIGHT})
    return tmp_path / "m.safetensors"


def test_bytes_go_straight_into_memory_when_it_fits(path: Path) -> None:
    stored = open_tensors(path)["w"]
    out = torch.full((4, 6), -1.0, dtype=torch.float16)
    assert stored.fits(out)
    stored.read_rows_into(2, out)
    assert torch.equal(out, WEIGHT[2:6])
    stored.read_rows_into(7, out[:0])
    assert torch.equal(out, WEIGHT[2:6])


def test_memory_does_not_fit_when_something_has_to_change(path: Path) -> None:
    stored = open_tensors(path)["w"]
    assert not stored.fits(torch.empty(7, 6))
    assert not stored.fits(torch.empty(7, 5, dtype=torch.float16))
    assert not stored.fits(torch.empty(6, 7, dtype=torch.float16).t())
    assert not stored.fits(torch.empty(7, 6, dtype=torch.float16, device="meta"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("chunk", [6, 12, 1000])
def test_views_hold_the_rows_in_their_order_when_loaded(
    path: Path, dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(released, "_CHUNK_ELEMENTS", chunk)
    out = torch.full((9, 6), -1.0, dtype=dtype)
    _load(open_tensors(path)["w"], [out[6:9], out[0:3], out[4:5]])
    assert torch.equal(out[[6, 7, 8, 0, 1, 2, 4]], WEIGHT.to(dtype))
    assert (out[[3, 5]] == -1).all()


def test_views_hold_the_rows_when_the_stored_tensor_has_strides(tmp_path: Path) -> None:
    torch.save({"w": WEIGHT.t()}, tmp_path / "m.bin")
    stored = open_tensors(tmp_path / "m.bin")["w"]
    out = torch.empty(6, 7, dtype=torch.float16)
    assert not stored.fits(out)
    _load(stored, [out[:2], out[2:]])
    assert torch.equal(out, WEIGHT.t())


def test_error_says_truncated_when_the_file_has_become_shorter(path: Path) -> None:
    stored = open_tensors(path)["w"]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="m.safetensors is truncated: copy or download it"):
        stored.read_rows_into(0, torch.empty(7, 6, dtype=torch.float16))
