"""The script behind `make sanitize`: what it says where there are no sanitizers."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sanitize() -> ModuleType:
    path = ROOT / "kernels" / "sanitize.py"
    specification = importlib.util.spec_from_file_location("sanitize", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def write_compiler(folder: Path, script: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_compiler_is_named_when_it_has_no_runtime(
    sanitize: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Clang prints the name back that it was asked for."""
    script = 'for last; do :; done; case "$1" in -print*) echo "${1#*=}";; *) : > "$last";; esac'
    monkeypatch.setenv("CXX", write_compiler(tmp_path, script))
    problem = sanitize.build(tmp_path / "lib.so")
    assert problem.startswith(
        f"the compiler '{tmp_path}/compiler' comes without libasan.so and lib"
    )
    assert problem.endswith("use g++ with its sanitizers, `CXX=g++ make sanitize`")


def test_reason_of_the_compiler_is_passed_on_when_it_refuses(
    sanitize: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = "echo cannot find -lasan >&2; exit 1"
    monkeypatch.setenv("CXX", write_compiler(tmp_path, script))
    problem = sanitize.build(tmp_path / "lib.so")
    assert problem.startswith("the library cannot be built with sanitizers: ")
    assert problem.endswith("failed:\ncannot find -lasan\n")


def test_runtime_is_a_file_when_the_compiler_has_it(sanitize: ModuleType) -> None:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    found = Path(sanitize.runtime("libasan.so"))
    assert not found.is_absolute() or found.exists()


def test_tests_that_it_runs_are_there(sanitize: ModuleType) -> None:
    assert all((ROOT / path).exists() for path in sanitize.TESTS)
