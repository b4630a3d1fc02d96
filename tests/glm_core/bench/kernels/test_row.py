"""How two contenders become a row."""

from __future__ import annotations

import pytest
import torch

from glm_core.bench.kernels.contest import Contender, Contest
from glm_core.bench.kernels.goal import Goal
from glm_core.bench.kernels.row import describe, rows_of

MACHINE = describe(torch.device("cpu"))


def contest(peer: Contender, unit: str = "ms") -> Contest:
    ours = Contender("15-bit activations", [], work=3e9, code="cpu.norm", error=1e-4)
    ours.seconds = [0.1, 0.2, 0.4]
    return Contest("op", "", "2x3", "float32", [ours], [peer], unit)


def test_ratio_is_their_time_by_ours_when_it_is_a_peer():
    peer = Contender("torch", [], goal=Goal(1.0), seconds=[0.2, 0.2, 0.4])
    (row,) = rows_of(contest(peer), MACHINE)
    assert (row.ratio, row.ratio_low, row.ratio_high) == (1.0, 1.0, 2.0)
    assert row.best_ratio == 2.0 and (row.ours, row.ours_best) == (200.0, 100.0)
    assert (row.goal, row.verdict, row.rounds) == (">= 1x", "met", 3)
    assert (row.part, row.code, row.error) == ("15-bit activations", "cpu.norm", 1e-4)


def test_ratio_is_a_share_of_the_rate_when_it_is_the_limit():
    limit = Contender("reading memory, mv", [], 6e9, Goal(0.88), is_limit=True)
    limit.seconds = [0.1, 0.2, 0.4]
    (row,) = rows_of(contest(limit, "GB/s"), MACHINE)
    assert row.ratio == pytest.approx(0.5) and row.best_ratio == pytest.approx(0.5)
    assert (row.ours, row.ours_best, row.theirs) == pytest.approx((15.0, 30.0, 30.0))
    assert row.verdict == "missed by 43 %"


def test_reason_stands_in_the_row_when_a_peer_could_not_run():
    (row,) = rows_of(contest(Contender("Liger", [], goal=Goal(1.0), reason="no GPU")), MACHINE)
    assert (row.theirs, row.ratio, row.verdict, row.reason) == (None, None, "", "no GPU")
    assert row.ours == 200.0 and row.rounds == 0


def test_clock_says_so_when_sides_ran_as_graphs():
    made = contest(Contender("torch", [], seconds=[0.2]))
    made.in_graphs = True
    assert rows_of(made, MACHINE)[0].clock == f"{MACHINE.clock}, CUDA graphs"


def test_machine_is_described_when_rows_are_written():
    assert MACHINE.device == "cpu" and MACHINE.machine and MACHINE.isa and MACHINE.threads > 0
    assert MACHINE.torch == torch.__version__
