"""One line of the result: ours against one peer at one shape."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

import torch

from glm_core.bench.clock import clock_name
from glm_core.bench.kernels.contest import Contender, Contest
from glm_core.bench.kernels.goal import Goal
from glm_core.bench.machine import processor
from glm_kernels.cpu import library


@dataclass(frozen=True)
class Machine:
    """Where a row was measured."""

    device: str
    machine: str
    isa: str
    threads: int
    clock: str
    torch: str


@dataclass(frozen=True)
class KernelRow:
    """Ours against one peer. Fields are empty (None) where there is nothing to say."""

    op: str
    part: str
    """Forward, forward+backward, or bits of the activations."""
    shape: str
    dtype: str
    device: str
    machine: str
    isa: str
    threads: int
    clock: str
    torch: str
    code: str
    """Our implementation that ran."""
    peer: str
    unit: str
    ours: float | None
    """Median of the rounds."""
    ours_best: float | None
    theirs: float | None
    theirs_best: float | None
    ratio: float | None
    """Median over the rounds of their time / ours, above 1 we are faster; of reading memory, our
    share of its rate; of memory, theirs / ours."""
    ratio_low: float | None
    ratio_high: float | None
    best_ratio: float | None
    """The same of the best round of each side."""
    goal: str
    verdict: str
    error: float | None
    """Of ours, relative, against fp64."""
    rounds: int
    load: float
    reason: str
    """Why the peer could not run."""


def describe(device: torch.device) -> Machine:
    """What this process runs on."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        isa = "sm{}{}".format(*torch.cuda.get_device_capability(device))
    else:
        name = processor()
        isa = "torch" if library.unavailable() else library.ISAS[library.isa()]
    threads = torch.get_num_threads()
    return Machine(device.type, name, isa, threads, clock_name(device), torch.__version__)


def rows_of(contest: Contest, machine: Machine) -> list[KernelRow]:
    """Each of ours against each peer."""
    return [row_of(contest, ours, peer, machine) for ours in contest.ours for peer in contest.peers]


def row_of(contest: Contest, ours: Contender, peer: Contender, machine: Machine) -> KernelRow:
    """Compares round by round."""
    ratios = _ratios(ours, peer)
    ratio = statistics.median(ratios) if ratios else None
    best = None
    if ratios:
        best = (
            max(ours.rates) / max(peer.rates)
            if peer.is_limit
            else min(peer.seconds) / min(ours.seconds)
        )
    median, fastest = _values(ours, contest.unit)
    their_median, their_fastest = _values(peer, contest.unit)
    return KernelRow(
        op=contest.op,
        part=ours.name if contest.part == "" else contest.part,
        shape=contest.shape,
        dtype=contest.dtype,
        **vars(_in_graphs(machine) if contest.in_graphs else machine),
        code=ours.code,
        peer=peer.name,
        unit=contest.unit,
        ours=median,
        ours_best=fastest,
        theirs=their_median,
        theirs_best=their_fastest,
        ratio=ratio,
        ratio_low=min(ratios, default=None),
        ratio_high=max(ratios, default=None),
        best_ratio=best,
        goal=_text(peer.goal),
        verdict=peer.goal.verdict(ratio) if peer.goal and ratio is not None else "",
        error=ours.error,
        rounds=len(ratios),
        load=contest.load,
        reason=peer.reason,
    )


def _in_graphs(machine: Machine) -> Machine:
    return replace(machine, clock=f"{machine.clock}, CUDA graphs")


def _text(goal: Goal | None) -> str:
    return "" if goal is None else str(goal)


def _ratios(ours: Contender, peer: Contender) -> list[float]:
    if peer.is_limit:
        return [mine / other for mine, other in zip(ours.rates, peer.rates, strict=False)]
    return [other / mine for mine, other in zip(ours.seconds, peer.seconds, strict=False)]


def _values(contender: Contender, unit: str) -> tuple[float | None, float | None]:
    """Median and best in the contest's unit."""
    if not contender.seconds:
        return None, None
    if unit == "ms":
        times = [seconds * 1e3 for seconds in contender.seconds]
        return statistics.median(times), min(times)
    return statistics.median(contender.rates), max(contender.rates)
