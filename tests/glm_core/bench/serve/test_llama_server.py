"""llama.cpp's server: how it is built, with a fake interpreter and a fake cmake."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from glm_core.bench import environments
from glm_core.bench.environments import Environment
from glm_core.bench.serve.llama_server import PROGRAM, LlamaServer, llama_server

PYTHON = """#!/bin/sh
echo "python $*"
case "$*" in *download*) for last; do :; done
  while [ "$1" != --dest ]; do shift; done; cp {archive} "$2"/llama.tar.gz;; esac
"""
CMAKE = """#!/bin/sh
echo "cmake $*"
test -z "$BROKEN" || exit 1
case "$1" in --build) mkdir -p "$2/bin"
  printf '#!/bin/sh\\necho "version: 7 (abc)" >&2\\n' > "$2/bin/llama-server"
  chmod +x "$2/bin/llama-server";; *) test -e "$2/CMakeLists.txt";; esac
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LlamaServer:
    """llama.cpp's environment is there; its programs only note what they are asked."""
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(Environment, "reason", lambda self: "")
    archive = tmp_path / "sources.tar.gz"
    with tarfile.open(archive, "w:gz") as writer:
        writer.addfile(tarfile.TarInfo("llama-1/vendor/llama.cpp/CMakeLists.txt"), io.BytesIO())
    made = replace(llama_server(with_amx=False), environment=Environment(name="l", compiled="l==1"))
    programs = made.path.parent
    programs.mkdir(parents=True)
    for name, text in {"python": PYTHON.replace("{archive}", str(archive)), "cmake": CMAKE}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return made


def test_program_is_built_once_from_the_package_sources(server: LlamaServer) -> None:
    assert f"{PROGRAM} is not built: --setup-peers builds it into" in server.reason()
    assert server.set_up() == "" and server.reason() == ""
    log = server.environment.log.read_text()
    assert "pip download --no-deps --no-cache-dir --no-binary l --dest" in log
    assert "-DLLAMA_USE_PREBUILT_UI=OFF" in log and "--target llama-server" in log
    assert server.version() == "version: 7 (abc), sources of l==1"
    server.environment.log.unlink()
    assert server.set_up() == "" and not server.environment.log.exists()


def test_reason_is_told_when_building_fails(
    server: LlamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "1")
    assert server.set_up() == f"building {PROGRAM} failed, as {server.environment.log} tells"
    assert "is not built" in server.reason()
