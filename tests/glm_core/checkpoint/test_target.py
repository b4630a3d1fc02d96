"""A conversion appears whole or not at all, whatever stops it."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from glm_core.checkpoint import convert as convert_module
from glm_core.checkpoint import target as target_module
from glm_core.checkpoint import writer as writer_module
from glm_core.checkpoint.convert import convert
from glm_core.checkpoint.released import open_checkpoint
from glm_core.testing import tiny_model

from .test_convert import write_ours


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    write_ours(folder, tiny_model("glm-4-9b"))
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("what", ["file", "folder"])
def test_error_when_the_target_exists(tmp_path, source, what):
    target = tmp_path / "target"
    if what == "folder":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    else:
        target.write_text("mine")
    with pytest.raises(ValueError, match="target exists already: choose another folder, or delete"):
        convert(source, target, "chatglm2")
    assert (target / "mine.txt" if what == "folder" else target).read_text() == "mine"
    assert names(tmp_path) == ["source", "target"]


def test_empty_target_is_filled(tmp_path, source):
    (tmp_path / "target").mkdir()
    convert(source, tmp_path / "target", "chatglm2")
    assert names(tmp_path) == ["source", "target"]
    assert open_checkpoint(tmp_path / "target").format.name == "chatglm2"


def test_source_is_no_target(source):
    with pytest.raises(ValueError, match="exists already"):
        convert(source, source, "chatglm2")


def test_folders_above_are_made(tmp_path, source):
    convert(source, tmp_path / "a/b/c", "chatglm2")
    assert names(tmp_path / "a/b") == ["c"]


def test_error_before_anything_is_written_when_the_disk_is_too_small(tmp_path, source, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(target_module.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(ValueError, match=r"target needs \d.* kB and its disk has 1\.0 kB free"):
        convert(source, tmp_path / "a/target", "chatglm2")
    assert names(tmp_path) == ["source"]


def fail_after(monkeypatch, count, error):
    """Makes the writing of the `count`-th tensor fail."""
    really, calls = writer_module.bytes_of, []

    def bytes_of(tensor):
        calls.append(tensor)
        if len(calls) > count:
            raise error
        return really(tensor)

    monkeypatch.setattr(writer_module, "bytes_of", bytes_of)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("count", [0, 1, 9])
@pytest.mark.parametrize("target", ["target", "a/b/target"])
def test_nothing_is_left_when_the_disk_fills_up(tmp_path, source, monkeypatch, target, count):
    fail_after(monkeypatch, count, FULL)
    message = (
        r"cannot write .*target \(No space left on device\): free some space .*nothing is left"
    )
    with pytest.raises(OSError, match=message) as caught:
        convert(source, tmp_path / target, "glm4-hf", max_shard_bytes=2000)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == ["source"]


def test_nothing_is_left_when_the_disk_fills_up_at_the_end(tmp_path, source, monkeypatch):
    def fsync(descriptor):
        raise FULL

    monkeypatch.setattr(writer_module.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        convert(source, tmp_path / "target", "glm4-hf")
    assert names(tmp_path) == ["source"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError()])
def test_nothing_is_left_when_it_is_interrupted(tmp_path, source, monkeypatch, error):
    fail_after(monkeypatch, 5, error)
    with pytest.raises(type(error)):
        convert(source, tmp_path / "a/target", "glm4-hf")
    assert names(tmp_path) == ["source"]


def test_nothing_is_left_when_the_source_is_damaged_after_it_was_opened(
    tmp_path, source, monkeypatch
):
    really = convert_module.Conversion.write

    def write(self, *args):
        os.truncate(source / "model.safetensors", 5000)
        really(self, *args)

    monkeypatch.setattr(convert_module.Conversion, "write", write)
    with pytest.raises(ValueError, match=r"source/model\.safetensors is truncated"):
        convert(source, tmp_path / "target", "glm4-hf")
    assert names(tmp_path) == ["source"]


def test_error_when_the_place_may_not_be_written(tmp_path, source, monkeypatch):
    def mkdir(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(target_module.Path, "mkdir", mkdir)
    with pytest.raises(OSError, match=r"cannot write .*target \(Permission denied\): .*choose ano"):
        convert(source, tmp_path / "target", "glm4-hf")


def test_error_when_a_file_stands_in_the_way_of_the_folder(tmp_path, source):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="cannot write .*: free some space or choose another folder"):
        convert(source, tmp_path / "file/target", "glm4-hf")
    assert names(tmp_path) == ["file", "source"]


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_goes_with_the_next_run(tmp_path, source):
    left = tmp_path / f".writing-target-{dead_process()}"
    others = [
        tmp_path / f".writing-target-{os.getppid()}",  # still running
        tmp_path / f".writing-target-two-{dead_process()}",  # of another target
        tmp_path / ".writing-target-notes",
    ]
    for folder in [left, *others]:
        folder.mkdir()
        (folder / "model.safetensors").write_text("half")
    convert(source, tmp_path / "target", "chatglm2")
    assert names(tmp_path) == sorted(["source", "target", *(other.name for other in others)])


KILLED = """
import os, signal, sys
from glm_core.checkpoint import writer
from glm_core.checkpoint.convert import convert

really, calls = writer.bytes_of, []

def bytes_of(tensor):
    calls.append(tensor)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return really(tensor)

writer.bytes_of = bytes_of
convert(sys.argv[1], sys.argv[2], "glm4-hf")
"""


def test_target_is_absent_when_the_process_is_killed_and_whole_after_the_next_run(tmp_path, source):
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "target")]
    assert subprocess.run(command, capture_output=True).returncode == -9
    left = names(tmp_path)
    assert len(left) == 2 and left[0].startswith(".writing-target-")
    convert(source, tmp_path / "target", "glm4-hf")
    assert names(tmp_path) == ["source", "target"]
    one, other = open_checkpoint(source), open_checkpoint(tmp_path / "target")
    assert all(torch.equal(one.read(name), other.read(name)) for name in one.names())
