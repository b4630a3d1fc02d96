"""`glm bench decode`: its contenders at a tiny size, how processes answer, what the rows say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from glm_core import cli
from glm_core.bench import decode, decode_workers, llama
from glm_core.bench.decode import Contender, as_result, as_table, measure, ratios, shape_config
from glm_core.model import TransformerConfig
from glm_core.model.presets import preset
from glm_core.testing import tiny_config

JOB: dict[str, Any] = {
    "shape": "tiny",
    "layers": 2,
    "batch": 2,
    "tokens": 3,
    "threads": 1,
    "bits": 4,
}


def config_of(shape: str, layers: int) -> TransformerConfig:
    sizes = {
        "head_dim": 16,
        "hidden_size": 64,
        "ffn_hidden_size": 96,
        "rotary_dim": 8,
        "vocab_size": 64,
    }
    return tiny_config("chatglm2-6b", num_layers=layers, **sizes)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shape is a tiny one."""
    monkeypatch.setattr(decode_workers, "shape_config", config_of)
    monkeypatch.setattr(decode, "shape_config", config_of)
    monkeypatch.setattr(decode_workers, "READ_BYTES", 1 << 20)


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_ours_writes_when_weights_have_these_bits(tiny: None, bits: int) -> None:
    about, run = decode_workers.ours({**JOB, "bits": bits})
    matrices = 2 * (64 * (64 + 64) + 64 * 64 + 3 * 64 * 96) + 64 * 64
    expected = matrices * {4: 4.5, 8: 8.0, 32: 32.0}[bits] / 8
    # norms, biases, and rows that are padded to blocks of 16
    assert expected < about["bytes"] < 1.15 * expected + 6000
    assert run() > 0


def test_peers_write_when_they_are_there(tiny: None) -> None:
    if not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
        pytest.skip("this torch has no int4 product for CPUs")
    about, run = decode_workers.torch_int4(JOB)
    assert "int4" in about["weights"] and run() > 0
    pytest.importorskip("transformers")
    about, run = decode_workers.transformers(JOB)
    assert about["weights"] == "bfloat16" and run() > 0


def test_reading_is_measured_in_gigabytes(tiny: None) -> None:
    about, run = decode_workers.read_memory(JOB)
    assert about["bytes"] == 1 << 20 and 0.01 < run() < 1e4


def test_random_matrices_have_every_level() -> None:
    levels = decode_workers.random_bytes((512, 512), torch.uint8)
    assert len(levels.unique()) == 256


SCRIPT = """
import json, sys
job = json.loads(sys.argv[1])
if job["contender"] == "transformers":
    sys.exit(3)
print(json.dumps({"weights": "none", "bytes": 10**9}), flush=True)
rate = {"read": 30.0, "ours": 8.0, "torch-int4": 4.0}.get(job["contender"], 2.0)
rate = rate * 2 if job.get("variant") == "Q4_K" else rate
for line in sys.stdin:
    print(json.dumps({"rate": rate}), flush=True)
"""


@pytest.fixture
def scripted(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders are processes with known rates; that of transformers stops at once."""
    command = [sys.executable, "-c", SCRIPT]

    def contender(job: dict[str, Any]) -> Contender:
        return Contender(job, command)

    monkeypatch.setattr(decode, "_contender", contender)


@pytest.mark.parametrize("memory", [1 << 60, 0])
def test_rows_compare_round_by_round_when_all_have_run(
    scripted: None, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(decode, "_available_bytes", lambda: memory)
    rows = measure("chatglm3-6b", decode.PEERS, layers=2, rounds=2, threads=1)
    names = ["ours", "llama.cpp Q4_0", "llama.cpp Q4_K", "torch-int4", "transformers"]
    assert [row.contender for row in rows] == names
    assert [row.ratio for row in rows] == [1.0, 4.0, 2.0, 2.0, 0.0]
    assert [row.rounds for row in rows] == [2, 2, 2, 2, 0]
    # against the better of the two kinds of llama.cpp, and without the one that stopped
    assert ratios(rows) == {"llama.cpp": 2.0, "torch-int4": 2.0}
    assert rows[-1].reason == "stopped with status 3; its message stands above"
    text = as_table(rows)
    assert "reading memory at 30.0 GB/s" in text
    assert "transformers    could not run: stopped with status 3" in text
    result = as_result(rows, Path("a.csv"))
    assert json.loads(json.dumps(result))["ratios"] == {"llama.cpp": 2.0, "torch-int4": 2.0}


def test_rows_and_ratios_are_printed_when_the_command_runs(
    scripted: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = tmp_path / "decode.csv"
    arguments = ["--against", "torch-int4", "--rounds", "1", "--csv", str(csv), "--json"]
    assert cli.main(["bench", "decode", "--layers", "2", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["ratios"] == {"torch-int4": 2.0}
    header, *lines = csv.read_text().splitlines()
    assert header.startswith("commit,shape,layers,batch,contender,weights,tokens_per_second")
    assert len(lines) == 2 and all(line.count(",") == header.count(",") for line in lines)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--against", "vllm"], "--against names 'vllm': choose from llama.cpp, torch-int4"),
        (["--model-shape", "gpt-5"], "model preset 'gpt-5' is unknown"),
        (["--layers", "29"], "--layers is 29: chatglm3-6b has 28"),
        (["--batch", "0"], "--batch is 0: it must be at least 1"),
        (["--bits", "16"], "--bits is 16: bench decode takes one of 32, 8, 4"),
    ],
)
def test_flags_are_refused_when_wrong(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["bench", "decode", "--csv", str(tmp_path / "a.csv"), *flags]) != 0
    assert message in capsys.readouterr().err


def test_shape_of_a_training_run_is_known() -> None:
    assert shape_config("10m").hidden_size == 320
    assert shape_config("chatglm3-6b", 3).num_layers == 3


def test_llama_cpp_says_why_when_it_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "ENVIRONMENT", tmp_path)
    assert "how to install it" in llama.llama_command(preset("chatglm3-6b"))[1]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    command, reason = llama.llama_command(preset("chatglm3-6b"))
    assert reason == "" and command is not None
    assert json.loads(command[2])["ffn_hidden_size"] == 13696
    assert llama.llama_command(preset("glm-10b"))[1] == "llama.cpp's chatglm has no LayerNorm"
    assert "interleaved RoPE" in llama.llama_command(preset("llama-7b"))[1]
