"""The compiled part: built from the sources as they are, instruction sets by name, refusals."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
from pathlib import Path

import pytest

from glm_kernels.cpu import library

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def builder():
    """The build hook as a module, and its target in a folder of the test."""
    specification = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_library_is_of_these_sources_when_there_is_a_compiler():
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    assert library.unavailable() is None, "run `python hatch_build.py` or `make`"


def test_hook_and_loader_hash_alike(builder):
    assert builder.source_hash() == library.source_hash()


def test_stale_library_is_refused_when_sources_have_changed(monkeypatch):
    if library.unavailable() is not None:
        pytest.skip(f"no compiled kernels: {library.unavailable()}")
    monkeypatch.setattr(library, "source_hash", lambda: "0" * 16)
    loaded = library._load.__wrapped__()
    assert "the compiled part is of another version; install the package again" in str(loaded)


def test_broken_library_is_refused_with_its_reason(monkeypatch, tmp_path):
    (tmp_path / "broken.so").write_bytes(b"not a library")
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(tmp_path / "broken.so"))
    assert "the compiled part does not load" in str(library._load.__wrapped__())


def test_build_gives_the_reason_when_the_compiler_is_missing(builder, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = builder.compile_library(tmp_path / "lib.so")
    assert reason == ("the C++ compiler 'no-such-compiler' was not found; install g++ or clang")
    assert not (tmp_path / "lib.so").exists()


def test_build_gives_the_reason_when_compiling_fails(builder, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "false")
    assert builder.compile_library(tmp_path / "lib.so").startswith("false failed:")
    assert not (tmp_path / "lib.so").exists()


def test_library_is_found_current_when_it_holds_the_hash(builder, tmp_path):
    library_file = tmp_path / "lib.so"
    assert not builder.is_current(library_file)
    library_file.write_bytes(b"\0" + builder.source_hash().encode() + b"\0")
    assert builder.is_current(library_file)


def test_instruction_set_is_refused_when_unknown():
    if library.unavailable() is not None:
        pytest.skip(f"no compiled kernels: {library.unavailable()}")
    with (
        pytest.raises(ValueError, match="instruction set 'sse9' cannot be used here; choose one"),
        library.use_isa("sse9"),
    ):
        pass


def test_threads_are_those_of_torch_on_linux():
    address = library._torch_parallel()
    if address is None:
        pytest.skip("torch has no GOMP_parallel here")
    assert address == ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
