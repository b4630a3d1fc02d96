"""The benchmark compares like with like, and writes the rows it promises."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[3] / "kernels" / "benchmarks"
SMALL = [
    "rms_norm-2048x320-fp32",
    "layer_norm-2048x320-fp32",
    "rope_halves-4-fp32",
    "rope_interleaved-4-fp32",
    "rope_2d-4-fp32",
    "gelu_tanh-2048-fp32",
    "gelu_erf-2048-fp32",
    "swiglu-2048-fp32",
    "geglu_erf-2048-fp32",
    "scale_mask_softmax-fp32",
]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("bench_ops")
    for name in ("bench_ops", "peers"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", SMALL)
def test_peer_computes_the_same_when_given_the_same_inputs(bench, name):
    torch.manual_seed(0)
    case = bench.CASES[name]()
    leaf = case.inputs[0]
    results = []
    for function in (case.ours, case.peer):
        out = function(*case.inputs)
        results.append((out, torch.autograd.grad(out.square().sum(), leaf)[0]))
    for ours, peer in zip(*results, strict=True):
        torch.testing.assert_close(ours, peer, rtol=1e-4, atol=1e-4)


def test_rows_have_every_column_when_an_op_is_measured(bench, monkeypatch, tmp_path, capsys):
    out = tmp_path / "rows.csv"
    arguments = ["--only", "rms_norm-2048x320-fp32", "--rounds", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_ops.py", *arguments, "--out", str(out)])
    threads = torch.get_num_threads()
    bench.main()
    torch.set_num_threads(threads)
    (row,) = csv.DictReader(out.open())
    assert list(row) == bench.COLUMNS
    assert row["op"] == "rms_norm" and row["shape"] == "2048x320" and row["dtype"] == "float32"
    assert float(row["ratio"]) == pytest.approx(float(row["peer"]) / float(row["ours"]), abs=0.01)
    assert "ratio" in capsys.readouterr().out


def test_committed_rows_can_be_read():
    for path in (FOLDER / "results").glob("*.csv"):
        rows = list(csv.DictReader(path.open()))
        assert rows and all(row["commit"] for row in rows)
        assert all(float(row["ratio"]) > 0 for row in rows if row["ratio"])  # empty: has no peer
        assert any(row["ratio"] for row in rows)
