"""`glm bench decode`: who computes, and what the rows say; rates come from scripted processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from glm_core import cli
from glm_core.bench import decode
from glm_core.bench.contender import Contender
from glm_core.bench.decode import Plan, measure, ratios, shape_config
from glm_core.bench.decode_table import as_table

SCRIPT = """
import json, sys
job = json.loads(sys.argv[1])
if job["contender"] == "transformers":
    sys.exit(3)
print(json.dumps({"weights": "none", "activations": "fp32", "bytes": 10**9}), flush=True)
rate = {"read": 30.0, "ours": 8.0, "torch-int4": 4.0}.get(job["contender"], 2.0)
rate = rate * 2 if job.get("variant") in ("Q4_K", "8-bit") else rate
for line in sys.stdin:
    print(json.dumps({"rate": rate}), flush=True)
"""


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Contenders are processes with known rates; that of transformers stops at once."""
    jobs = []

    def contender(job: dict[str, Any]) -> Contender:
        jobs.append(job)
        return Contender(job, [sys.executable, "-c", SCRIPT])

    monkeypatch.setattr(decode, "_contender", contender)
    monkeypatch.setattr(decode, "_set_up", lambda peer, with_amx: "")
    return jobs


@pytest.mark.parametrize("memory", [1 << 60, 0])
def test_rows_compare_round_by_round_when_all_have_run(
    scripted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(decode, "available_bytes", lambda device: memory)
    rows = measure(Plan(shape="chatglm3-6b", layers=2, rounds=2, threads=1), decode.PEERS)
    assert {row.contender: row.ratio for row in rows} == {
        "ours": 1.0,
        "llama.cpp Q4_0": 4.0,
        "llama.cpp Q4_K": 2.0,
        "chatglm.cpp Q4_0": 4.0,
        "torch-int4": 2.0,
        "transformers": 0.0,
    }
    assert [row.rounds for row in rows] == [2, 2, 2, 2, 2, 0]
    assert rows[0].read_gb_per_second == 30.0
    # against the better of the two kinds of llama.cpp, and without the one that stopped
    assert ratios(rows) == {"llama.cpp": 2.0, "chatglm.cpp": 4.0, "torch-int4": 2.0}
    assert rows[-1].reason == "stopped with status 3; its message stands above"


def test_ours_is_measured_with_8_bits_too_when_a_prompt_is_read(
    scripted: list[dict[str, Any]],
) -> None:
    plan = Plan(shape="chatglm3-6b", prompt=512, rounds=1, threads=1)
    rows = measure(plan, ["llama.cpp"])
    assert [row.contender for row in rows][:2] == ["ours", "ours 8-bit"]
    assert rows[0].layers == decode.PROMPT_LAYERS and rows[0].prompt == 512
    assert rows[0].tokens == 0
    assert ratios(rows) == {"llama.cpp": 2.0}
    assert ratios(rows, eight_bit=True) == {"llama.cpp": 4.0}


def test_gpu_has_peers_and_goals_of_its_own(
    scripted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "available_bytes", lambda device: 1 << 60)
    monkeypatch.setattr(decode, "graphics_processor", lambda: "GPU; sm90")
    rows = measure(Plan(shape="chatglm3-6b", rounds=1, device="cuda"), decode.GPU_PEERS)
    assert {job["device"] for job in scripted} == {"cuda"} and rows[0].cpu == "GPU; sm90"
    assert ratios(rows) == {"compiled-int4": 4.0, "compiled-bf16": 4.0}
    text = as_table(rows)
    assert "ours / compiled-int4: 4.00; goal 1.2, met" in text
    assert "ours reads its weights at 27% of the bandwidth; goal 80%, missed by 67%" in text
    with pytest.raises(ValueError, match="names 'llama.cpp': on cuda, choose from compiled-int4"):
        measure(Plan(shape="10m", device="cuda"), ["llama.cpp"])
    with pytest.raises(ValueError, match="--prompt is 9: reading prompts is measured on the CPU"):
        measure(Plan(shape="10m", device="cuda", prompt=9), [])


@pytest.mark.parametrize(("bits", "variants"), [(8, ["Q8_0"]), (32, ["Q4_0", "Q4_K"])])
def test_llama_cpp_has_weights_like_ours_when_bits_are_given(
    scripted: list[dict[str, Any]], bits: int, variants: list[str]
) -> None:
    measure(Plan(shape="10m", bits=bits, rounds=1), ["llama.cpp"])
    assert [job["variant"] for job in scripted if job["contender"] == "llama.cpp"] == variants


def test_reason_stands_in_the_row_when_setting_a_peer_up_fails(
    scripted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def set_up(peer: str, with_amx: bool) -> str:
        asked.append(peer)
        return "no compiler" if peer == "chatglm.cpp" else ""

    monkeypatch.setattr(decode, "_set_up", set_up)
    rows = measure(Plan(shape="10m", rounds=1), ["chatglm.cpp", "torch-int4"], set_up=True)
    assert asked == ["chatglm.cpp", "torch-int4"]
    assert [row.reason for row in rows] == ["", "no compiler", ""]


def test_amx_is_left_out_when_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "has_amx", lambda: True)
    job = {"contender": "ours", "shape": "10m", "layers": 1, "amx": False}
    assert decode._contender(job).environment["GLM_KERNELS_ISA"] == "avx512"
    assert decode._contender({**job, "amx": True}).environment == {}
    monkeypatch.setattr(decode, "has_amx", lambda: False)
    assert decode._contender(job).environment == {}


def test_rows_and_ratios_are_printed_when_the_command_runs(
    scripted: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = tmp_path / "decode.csv"
    arguments = ["--against", "torch-int4", "--rounds", "1", "--csv", str(csv), "--json"]
    for _ in range(2):
        assert cli.main(["bench", "decode", "--layers", "2", *arguments]) == 0
        assert json.loads(capsys.readouterr().out)["ratios"] == {"torch-int4": 2.0}
    header, *lines = csv.read_text().splitlines()
    assert header.startswith("commit,shape,layers,batch,prompt,contender,weights,activations,")
    assert len(lines) == 4 and all(line.count(",") == header.count(",") for line in lines)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--against", "vllm"],
            "--against names 'vllm': on cpu, choose from llama.cpp, chatglm.cpp",
        ),
        (["--model-shape", "gpt-5"], "model preset 'gpt-5' is unknown"),
        (["--layers", "29"], "--layers is 29: chatglm3-6b has 28"),
        (["--batch", "0"], "--batch is 0: it must be at least 1"),
        (["--bits", "16"], "--bits is 16: bench decode takes one of 32, 8, 4"),
        pytest.param(
            ["--device", "cuda"],
            "--device is 'cuda', but torch sees no",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["--prompt", "0"], "--prompt is 0: it must be at least 1"),
        (["--model-shape", "10m", "--prompt", "513"], "--prompt is 513: 10m has 512 positions"),
    ],
)
def test_flags_are_refused_when_wrong(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["bench", "decode", "--csv", str(tmp_path / "a.csv"), *flags]) != 0
    assert message in capsys.readouterr().err


def test_csv_is_refused_when_its_columns_are_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    csv = tmp_path / "a.csv"
    csv.write_text("commit,shape\n")
    assert cli.main(["bench", "decode", "--csv", str(csv)]) != 0
    assert "has other columns than these rows (activations, batch," in capsys.readouterr().err


def test_shape_of_a_training_run_is_known() -> None:
    assert shape_config("10m").hidden_size == 320
    assert shape_config("chatglm3-6b", 3).num_layers == 3
