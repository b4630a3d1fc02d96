"""`glm bench kernels` as a whole, at tiny sizes."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from glm_core import cli
from glm_core.bench import tune
from glm_core.bench.kernels import run
from glm_core.bench.kernels.row import KernelRow
from glm_core.bench.kernels.run import OPS, Plan, measure
from glm_core.bench.kernels.sizes import Sizes

CPU = torch.device("cpu")


def plan(only: str, **settings) -> Plan:
    settings = {"dtypes": (torch.float32,), "rounds": 3, "threads": 1} | settings
    return Plan(device=CPU, only=only, with_compile=False, **settings)


def rows_of(of_plan: Plan, sizes: Sizes) -> list[KernelRow]:
    return [row for rows in measure(of_plan, sizes) for row in rows]


def test_ops_are_chosen_when_patterns_fit():
    assert plan("").ops() == OPS
    assert plan("add_rms").ops() == ("add_rms_norm",)
    assert plan("rms_norm, linear_int8*").ops() == ("linear_int8_rows", "rms_norm", "add_rms_norm")
    assert plan("rms_norm*").ops() == ("rms_norm",)
    assert plan("memory").ops() == ("weights_memory", "cross_entropy_memory")


def test_pattern_is_refused_when_it_fits_nothing(tiny):
    with pytest.raises(ValueError, match="--only rmsnorm fits no op; there are linear_int4_g32, "):
        list(measure(plan("linear,rmsnorm"), tiny))


def test_rows_are_complete_when_everything_is_measured(tiny, caplog):
    caplog.set_level("INFO", logger=run.__name__)
    threads = torch.get_num_threads()
    rows = rows_of(
        plan("linear_int4_g32,swiglu,weights", dtypes=(torch.float32, torch.float16)), tiny
    )
    assert torch.get_num_threads() == threads
    assert {row.op for row in rows} == {"linear_int4_g32", "swiglu", "weights_memory"}
    assert {row.dtype for row in rows if row.op == "swiglu"} == {"float32", "float16"}
    assert all(row.ratio is not None or row.reason for row in rows)
    assert all(row.machine and row.isa and row.threads == 1 for row in rows)
    last = caplog.records[-1].getMessage()
    lines = [record for record in caplog.records if record.name == run.__name__]
    total = 5 + 2 * 2 + 1
    assert len(lines) == total and last == f"{total}/{total} weights_memory, eta 0s"


def test_command_prints_ratios_and_appends_rows_when_run(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run.sizes, "CPU", tiny)
    path = tmp_path / "new" / "kernels.csv"
    words = ["bench", "kernels", "--only", "gelu_erf,weights", "--dtype", "fp32", "--rounds", "3"]
    words += ["--threads", "1", "--no-compile", "--device", "cpu", "--csv", str(path)]
    assert cli.main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"ratios", "rows", "csv"} and result["csv"] == str(path)
    label = "gelu_erf 6x24 float32, forward"
    assert (
        result["ratios"][label] > 0
        and result["ratios"]["weights_memory chatglm-6b float16, int4 rows"] > 3
    )
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "gelu_erf" in out and "goals met" in out and "left out by --no-compile" in out
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == 2 * len(result["rows"])
    assert {"commit", "op", "machine", "isa", "clock", "goal", "verdict", "reason"} <= set(rows[0])
    goals = {row["op"]: row["goal"] for row in rows}
    assert rows[0]["commit"] and goals["gelu_erf"] == ""  # those of fused ops are for GPUs
    assert goals["weights_memory"] == "<= 4.2 GB"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "nothing"], "--only nothing fits no op"),
        (["--rounds", "0"], "--rounds is 0: it must be at least 1"),
        (["--threads", "-1"], "--threads is -1: it must be 0 or more"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_option_is_refused_when_it_is_wrong(words, message, capsys, tmp_path):
    assert cli.main(["bench", "kernels", *words, "--csv", str(tmp_path / "k.csv")]) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.startswith("error: ") and errors.count("\n") == 1


def test_rows_are_kept_when_a_run_is_interrupted(tiny, monkeypatch, tmp_path):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(run.sizes, "CPU", tiny)
    monkeypatch.setattr(run.memory, "weights", stop)
    path = tmp_path / "kernels.csv"
    words = ["--only", "gelu_erf,weights", "--threads", "1", "--no-compile", "--csv", str(path)]
    assert cli.main(["bench", "kernels", "--device", "cpu", *words]) == cli.INTERRUPTED
    assert {row["op"] for row in csv.DictReader(path.open())} == {"gelu_erf"}


def test_csv_is_refused_when_its_columns_are_others(tmp_path, capsys):
    path = tmp_path / "train.csv"
    path.write_text("commit,shape\n")
    assert cli.main(["bench", "kernels", "--only", "weights", "--csv", str(path)]) == 2
    assert "train.csv has other columns than these rows" in capsys.readouterr().err


def test_table_is_written_when_asked_to_tune(monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(tune, "tune", lambda device: seen.append(device) or tmp_path / "t.json")
    threads = torch.get_num_threads()
    words = ["bench", "kernels", "--tune", "--device", "cpu", "--threads", "1"]
    assert cli.main([*words, "--json"]) == 0
    torch.set_num_threads(threads)
    assert seen == [CPU]
    assert json.loads(capsys.readouterr().out) == {"table": str(tmp_path / "t.json")}


def test_cuda_is_refused_when_there_is_none(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert cli.main(["bench", "kernels", "--device", "cuda"]) == 2
    assert "--device is 'cuda', but torch sees no CUDA device" in capsys.readouterr().err


@pytest.mark.gpu
def test_everything_is_measured_when_there_is_a_gpu(tiny):
    device = torch.device("cuda")
    rows = rows_of(Plan(device=device, dtypes=(torch.bfloat16,), rounds=3, with_compile=True), tiny)
    assert {row.op for row in rows} == set(OPS)
    assert all(row.ratio is not None or row.reason for row in rows)
    assert {row.clock for row in rows} == {"cuda events"}
