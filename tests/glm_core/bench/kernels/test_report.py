"""What people and programs read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from glm_core.bench.kernels.report import as_result, as_table
from glm_core.bench.kernels.row import KernelRow

ROW = KernelRow(
    op="rms_norm",
    part="forward",
    shape="512x4096",
    dtype="float32",
    device="cpu",
    machine="Some CPU AVX512",
    isa="avx512",
    threads=2,
    clock="wall time",
    torch="2.15.0",
    code="cpu.norm",
    peer="formula",
    unit="ms",
    ours=1.0,
    ours_best=0.9,
    theirs=3.0,
    theirs_best=2.0,
    ratio=3.0,
    ratio_low=2.0,
    ratio_high=4.0,
    best_ratio=2.2,
    goal=">= 1x",
    verdict="met",
    error=None,
    rounds=9,
    load=1.5,
    reason="",
)
COMPILED = replace(ROW, peer="torch.compile", theirs=0.9, ratio=0.9, verdict="missed by 10 %")
MISSING = replace(ROW, peer="Liger", theirs=None, ratio=None, verdict="", reason="not installed")
LIMIT = replace(
    ROW, op="linear_int4_g32", peer="reading memory", ratio=0.9, goal=">= 0.88x", unit="GB/s"
)
PEER = replace(LIMIT, peer="torch int4", ratio=0.5, goal="", verdict="", error=1e-4)


def test_hardest_peer_leads_when_there_are_several():
    table = as_table([ROW, COMPILED, MISSING]).splitlines()
    assert "Some CPU AVX512, avx512, 2 threads" in table[0] and "load up to 1.5" in table[0]
    assert "torch.compile" in table[2] and "0.90x" in table[2] and "missed by 10 %" in table[2]
    assert "formula 3.00x" in table[3]
    assert table[4] == "Liger could not run (rms_norm): not installed"
    assert table[5] == "0 goals met, 1 missed, 0 rows without a goal"


def test_row_with_a_goal_leads_when_another_ratio_is_lower():
    table = as_table([replace(LIMIT, error=1e-4), PEER]).splitlines()
    assert "reading memory" in table[2] and "met" in table[2]
    assert "torch int4 0.50x; our error 1.0e-04" in table[3]


def test_ratios_are_flat_when_read_by_programs():
    result = as_result([ROW, COMPILED, MISSING, LIMIT, PEER], "abc", Path("k.csv"))
    assert result["ratios"] == {
        "rms_norm 512x4096 float32, forward": 0.9,
        "linear_int4_g32 512x4096 float32, forward": 0.9,
    }
    assert len(result["rows"]) == 5 and result["rows"][0]["commit"] == "abc"
    assert result["rows"][2]["ratio"] is None


def test_line_says_so_when_nobody_could_run():
    assert "nobody to compare with" in as_table([MISSING])
    assert as_result([MISSING], "abc", Path("k.csv"))["ratios"] == {}
