"""llama.cpp and chatglm.cpp: where they are installed, and what they cannot run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from glm_core.bench import environments, ggml_peers
from glm_core.bench.ggml_peers import CHATGLM_CPP, LLAMA_CPP, environment_of, ggml_contender
from glm_core.model.presets import preset

CORES = os.cpu_count() or 1
JOB: dict[str, Any] = {"batch": 1, "threads": CORES if CORES <= 4 else CORES // 2, "amx": False}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both peers seem to be there."""
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments.Environment, "reason", lambda self: "")


@pytest.mark.parametrize("peer", [LLAMA_CPP, CHATGLM_CPP])
def test_command_has_the_sizes_when_the_peer_is_installed(installed: None, peer: str) -> None:
    contender = ggml_contender({**JOB, "contender": peer}, preset("chatglm3-6b"))
    assert contender.reason == ""
    _, script, settings = contender.command
    assert Path(script).exists() and json.loads(settings)["ffn_hidden_size"] == 13696


@pytest.mark.parametrize("peer", [LLAMA_CPP, CHATGLM_CPP])
def test_reason_is_told_when_the_peer_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: str
) -> None:
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    contender = ggml_contender({**JOB, "contender": peer}, preset("chatglm3-6b"))
    assert "it is not set up: --setup-peers installs it" in contender.reason


@pytest.mark.parametrize(
    ("peer", "shape", "changes", "reason"),
    [
        (LLAMA_CPP, "glm-10b", {}, "its chatglm has no LayerNorm"),
        (CHATGLM_CPP, "llama-7b", {}, "no other positions than interleaved RoPE"),
        (CHATGLM_CPP, "chatglm3-6b", {"batch": 8}, "it computes one text at a time"),
        (CHATGLM_CPP, "chatglm3-6b", {"threads": 99}, "whatever one asks for, not 99"),
    ],
)
def test_reason_is_told_when_the_peer_cannot_run_it(
    installed: None, peer: str, shape: str, changes: dict[str, int], reason: str
) -> None:
    assert reason in ggml_contender({**JOB, **changes, "contender": peer}, preset(shape)).reason


def test_llama_cpp_has_two_environments_when_the_processor_has_amx(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ggml_peers, "has_amx", lambda: True)
    with_amx, without = environment_of(LLAMA_CPP, True), environment_of(LLAMA_CPP, False)
    assert with_amx is not None and without is not None
    assert with_amx.name == "llama.cpp" and without.name == "llama.cpp-without-amx"
    assert "-mno-amx-int8" in without.variables["CXXFLAGS"]
    assert "-fno-dse" in with_amx.variables["CXXFLAGS"]
    monkeypatch.setattr(ggml_peers, "has_amx", lambda: False)
    only = environment_of(LLAMA_CPP, False)
    assert only is not None and only.name == "llama.cpp" and only.variables["CXXFLAGS"] == ""


def test_no_environment_is_needed_when_the_peer_runs_in_ours() -> None:
    assert environment_of("torch-int4", True) is None
