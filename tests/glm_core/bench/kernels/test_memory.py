"""Memory of a 6B model's weights and of cross-entropy."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from glm_core.bench.kernels import memory
from glm_core.bench.kernels.row import describe

CPU = torch.device("cpu")
MACHINE = describe(CPU)


def test_weights_are_counted_when_the_model_is_chatglm_6b():
    rows = {row.part: row for row in memory.weights(MACHINE)}
    # 28 layers of 12 * 4096 ** 2 weights; the embedding, which is the head too, has 130528 rows
    matrices, table = 28 * 12 * 4096**2, 130528 * 4096
    expected = (matrices * 4.5 / 8 + 2 * table) / 1e9
    assert rows["int4 groups of 32"].ours == pytest.approx(expected, rel=1e-3)
    both = (matrices + table) * 4.5 / 8 / 1e9
    assert rows["int4 groups of 32, embeddings too"].ours == pytest.approx(both, rel=1e-3)
    assert rows["int4 rows"].verdict == "met"
    assert rows["int4 groups of 32"].verdict == "missed by 0.95 %"
    assert rows["int4 rows"].ratio == pytest.approx(2 * (matrices + table) / 1e9 / 3.89, rel=5e-3)


@pytest.mark.skipif(not memory.Path("/proc/self/status").exists(), reason="needs /proc")
def test_peak_is_below_that_of_all_logits_when_cross_entropy_is_fused(tiny):
    sizes = replace(tiny, loss_memory=(4096, 16, 8000))
    peak = memory._peak("ours", sizes, torch.float32, CPU)
    assert 0 < peak < 4096 * 8000 * 4  # seen: 0.6 of it, 50 MB of which are oneDNN's


def test_reason_is_given_when_a_side_fails(tiny, monkeypatch):
    def fail(side, *arguments):
        if side == memory.TORCH:
            raise RuntimeError("no linear_cross_entropy")
        return 2.0**20 if side == "ours" else 3 * 2.0**20

    monkeypatch.setattr(memory, "_peak", fail)
    full, torch_row = memory.losses(tiny, torch.float32, CPU, MACHINE)
    assert (full.peer, full.unit, full.shape) == (memory.FULL_LOGITS, "MiB", "512x16x4000")
    assert full.goal == f"<= {512 * 4000 * 4 / 2**20:.4g} MiB" and full.verdict == "met"
    assert (full.ours, full.theirs, full.ratio) == (1.0, 3.0, 3.0)
    assert torch_row.reason == "RuntimeError: no linear_cross_entropy"
    assert (torch_row.theirs, torch_row.ratio, torch_row.verdict) == (None, None, "")


def test_last_line_is_the_reason_when_a_process_fails(tiny, monkeypatch):
    done = SimpleNamespace(returncode=1, stdout="", stderr="Traceback\nKeyError: 'nobody'\n")
    monkeypatch.setattr(memory.subprocess, "run", lambda *arguments, **settings: done)
    with pytest.raises(RuntimeError, match="^KeyError: 'nobody'$"):
        memory._peak("nobody", tiny, torch.float32, CPU)
