"""Folders of .npy files: read from where they lie, and refused when they are no weights."""

import numpy as np
import pytest
import torch

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import open_folder
from glm_core.checkpoint.npy import npy_tensors


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_out_as_numpy_reads_them(tmp_path, kind, order):
    arrays = {
        "backbone.blocks.0.layernorm1.gamma": np.arange(5, dtype=kind),
        "backbone.a.weight": np.asarray(np.arange(21, dtype=kind).reshape(3, 7), order=order),
        "one": np.array(2.5, dtype=kind),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    found = npy_tensors(tmp_path)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert torch.equal(found[name].read(), torch.from_numpy(np.array(array, order="C")))
    assert set(open_folder(tmp_path).tensors) == set(arrays)


def test_there_are_none_when_the_folder_has_no_arrays(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert npy_tensors(tmp_path) == {}


@pytest.mark.parametrize("kind", ["int8", "bool", ">f4", "complex64"])
def test_error_names_the_kind_when_it_is_no_weight(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.zeros(3, dtype=kind))
    with pytest.raises(CheckpointError, match=r"a\.npy holds .* numbers: weights must be float16"):
        npy_tensors(tmp_path)


def test_objects_are_refused_when_reading_them_could_run_code(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"a\.npy is damaged or no \.npy file"):
        npy_tensors(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 40, -4])
def test_error_names_the_file_when_it_is_cut(tmp_path, keep):
    np.save(tmp_path / "a.npy", np.zeros(30, dtype=np.float32))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match=r"a\.npy is damaged or no \.npy file .*: copy or"):
        npy_tensors(tmp_path)
