"""Files of weights: read as they were written; damaged, foreign or malicious ones are refused."""

import builtins
import json
import os
import pickle
import re
import shlex
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.stored import open_tensors, read_exactly

from .released_files import TRAINING_STATE

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def sample():
    tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    return tensors | {"scalar": torch.tensor(3.5), "empty": torch.empty(0, 4)}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].shape == tuple(tensor.shape) and found[name].dtype == tensor.dtype
        read = found[name].read()
        assert read.is_contiguous() and read.dtype == tensor.dtype
        assert torch.equal(read, tensor), name


def test_tensors_are_those_that_the_safetensors_library_wrote(tmp_path):
    save_file(sample(), tmp_path / "a.safetensors", {"format": "pt"})
    assert_same(open_tensors(tmp_path / "a.safetensors"), sample())


@pytest.mark.parametrize("suffix", ["pt", "bin", "pth"])
def test_tensors_are_those_that_torch_saved(tmp_path, suffix):
    torch.save(sample(), tmp_path / f"a.{suffix}")
    assert_same(open_tensors(tmp_path / f"a.{suffix}"), sample())


def test_views_are_read_when_torch_saved_them_on_one_storage(tmp_path):
    base = torch.arange(60.0).reshape(5, 12)
    views = {
        "all": base,
        "rows": base[1:3],
        "columns": base[:, 4:7],
        "transposed": base.T,
        "steps": base[::2, ::3],
        "expanded": base[0, :1].expand(4),
    }
    torch.save(views, tmp_path / "a.pt")
    assert os.path.getsize(tmp_path / "a.pt") < 3000  # one storage
    assert_same(open_tensors(tmp_path / "a.pt"), views)


def test_rows_are_read_when_only_some_are_asked_for(tmp_path):
    base = torch.randn(7, 3, 2)
    save_file({"a": base}, tmp_path / "a.safetensors")
    stored = open_tensors(tmp_path / "a.safetensors")["a"]
    assert torch.equal(stored.read_rows(2, 5), base[2:5])
    assert stored.read_rows(3, 3).shape == (0, 3, 2)


def test_nested_dictionaries_come_out_flat_and_training_state_is_no_obstacle(tmp_path):
    module = {"language_model": {"transformer": {"layers.0.a": torch.ones(2)}, 7: torch.ones(3)}}
    parameter = torch.nn.Parameter(torch.ones(4))
    torch.save({"module": module, "p": parameter} | TRAINING_STATE, tmp_path / "a.pt")
    found = open_tensors(tmp_path / "a.pt")
    assert {name: tensor.shape for name, tensor in found.items() if "rng" not in name} == {
        "module.language_model.transformer.layers.0.a": (2,),
        "module.language_model.7": (3,),
        "p": (4,),
    }


def rewrite(source, target, change=lambda name, data: data, **how):
    """Copies a zip file, changing its entries on the way."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **how) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))


def test_state_of_numpy_1_is_no_obstacle(tmp_path):
    """numpy 2 moved the functions that pickles of arrays name."""
    torch.save({"a": torch.ones(2), "rng": np.random.get_state()}, tmp_path / "new.pt")

    def as_before(name, data):
        assert b"numpy._core.multiarray" in data or "data.pkl" not in name
        return data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")

    rewrite(tmp_path / "new.pt", tmp_path / "old.pt", as_before)
    assert torch.equal(open_tensors(tmp_path / "old.pt")["a"].read(), torch.ones(2))


def refuse(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        open_tensors(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("kept", [0, 4, 8, 40, -1, -20])
def test_error_when_a_safetensors_file_is_truncated(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.randn(20)}, path)
    os.truncate(path, kept if kept >= 0 else path.stat().st_size + kept)
    refuse(path, "truncated.*copy or download it again")


@pytest.mark.parametrize("kept", [0, 4, 500, -1, -1000])
def test_error_when_a_torch_file_is_truncated(tmp_path, kept):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.randn(2000)}, path)
    os.truncate(path, kept if kept >= 0 else path.stat().st_size + kept)
    refuse(path, "truncated.*copy or download it again")


def test_error_when_the_file_shrinks_after_it_was_opened(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.randn(20)}, path)
    stored = open_tensors(path)["a"]
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(CheckpointError, match=r"a\.safetensors is truncated"):
        stored.read()


def test_error_when_there_is_no_file(tmp_path):
    refuse(tmp_path / "a.safetensors", "is missing: copy or download it again")


def write_header(path, header):
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data + bytes(16))


ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
HEADERS = {
    "cut": b"{",
    "bytes": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "list": [],
    "number": {"a": 1},
    "no_shape": {"a": {"dtype": "F32"}},
    "larger_shape": {"a": ENTRY | {"shape": [5]}},
    "negative_shape": {"a": ENTRY | {"shape": [-4], "data_offsets": [0, -16]}},
    "word_for_shape": {"a": ENTRY | {"shape": "four"}},
    "negative_offset": {"a": ENTRY | {"data_offsets": [-4, 12]}},
    "one_offset": {"a": ENTRY | {"data_offsets": [0]}},
}


@pytest.mark.parametrize("header", HEADERS)
def test_error_when_the_header_is_damaged(tmp_path, header):
    write_header(tmp_path / "a.safetensors", HEADERS[header])
    refuse(tmp_path / "a.safetensors", "is damaged: its header cannot be read")


def test_error_names_the_dtype_when_it_is_not_supported(tmp_path):
    write_header(tmp_path / "a.safetensors", {"a": ENTRY | {"dtype": "F8_E4M3"}})
    refuse(tmp_path / "a.safetensors", "stores weights as F8_E4M3, .*: get the model in F16")


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"<html>404</html>", b"PK\x03\x04"])
def test_error_when_a_torch_file_is_something_else(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)
    refuse(tmp_path / "a.bin", "truncated")


@pytest.mark.parametrize(
    "pickled", [b"", b"\x80", b"\x80\x02X\x01", b"\x80\x02]q\x00", b"\x80\x02R.", b"\x80\x02hz."]
)
def test_error_when_the_pickle_inside_is_damaged(tmp_path, pickled):
    torch.save({"a": torch.ones(2)}, tmp_path / "whole.pt")
    rewrite(
        tmp_path / "whole.pt",
        tmp_path / "a.pt",
        lambda name, data: pickled if "data.pkl" in name else data,
    )
    refuse(tmp_path / "a.pt", "is damaged or truncated")


def test_error_when_a_zip_file_is_no_torch_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("readme.txt", "hello")
    refuse(tmp_path / "a.pt", "is damaged or truncated")


class RunsCode:
    """What a malicious file makes of the pickle protocol."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def follow_remedy(message):
    """Runs the command that the message gives."""
    command = re.search(r'python (-c ".*")', message)[1]
    subprocess.run([sys.executable, *shlex.split(command)], check=True)


def test_error_when_the_entries_are_compressed(tmp_path):
    """Offsets would point into compressed data."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(1000)}, tmp_path / "plain.pt")
    rewrite(tmp_path / "plain.pt", path, compression=zipfile.ZIP_DEFLATED)
    follow_remedy(refuse(path, "is compressed, .*: write it anew"))
    assert torch.equal(open_tensors(path)["a"].read(), torch.zeros(1000))


@pytest.mark.parametrize("nested", [True, False])
def test_code_in_a_pickle_does_not_run_and_the_remedy_works(tmp_path, nested):
    marker, path = tmp_path / "ran", tmp_path / "a.pt"
    weights, code = {"a": torch.ones(3)}, RunsCode(marker)
    torch.save({"module": weights, "args": code} if nested else weights | {"b": code}, path)
    message = refuse(path, r"holds more than weights \(.*open\).*could run code\. It is not read")
    assert not marker.exists()
    follow_remedy(message)
    assert marker.exists()  # their choice
    name = "module.a" if nested else "a"
    found = open_tensors(path)
    assert list(found) == [name] and torch.equal(found[name].read(), torch.ones(3))


def test_code_in_a_plain_pickle_does_not_run(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "a.bin"
    path.write_bytes(pickle.dumps({"a": RunsCode(marker)}))
    refuse(path, "in the format that torch wrote before 1.6, or is truncated")
    assert not marker.exists()


def test_legacy_file_is_refused_with_a_remedy_that_works(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    message = refuse(path, "format that torch wrote before 1.6")
    follow_remedy(message)
    assert torch.equal(open_tensors(path)["a"].read(), torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_error_when_the_file_may_not_be_read(tmp_path, monkeypatch, name):
    path = tmp_path / name
    (save_file if "safe" in name else torch.save)({"a": torch.ones(3)}, path)
    really_open, stored = builtins.open, open_tensors(path)["a"]

    def forbidding(file, *args, **kwargs):
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied")
        return really_open(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", forbidding)
    monkeypatch.setattr(zipfile.io, "open", forbidding)
    refuse(path, r"cannot be read \(Permission denied\): check its permissions")
    with pytest.raises(CheckpointError, match=f"{name} cannot be read .*: check its permissions"):
        stored.read()


class Trickle:
    """A file that returns at most three bytes at a time, as large reads return at most 2 GB."""

    def __init__(self, data):
        self.data = data

    def readinto(self, view):
        count = min(3, len(view), len(self.data))
        view[:count], self.data = self.data[:count], self.data[count:]
        return count


def test_reading_goes_on_when_one_read_is_not_enough(tmp_path):
    view = memoryview(bytearray(8))
    read_exactly(Trickle(b"abcdefgh"), view, tmp_path)
    assert bytes(view) == b"abcdefgh"
    with pytest.raises(CheckpointError, match="truncated"):
        read_exactly(Trickle(b"abc"), view, tmp_path)
