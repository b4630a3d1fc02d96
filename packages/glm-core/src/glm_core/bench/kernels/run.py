"""Goes through all kernels that were asked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from glm_core.bench.clock import stopwatch
from glm_core.bench.kernels import attention, fused, memory, products, sizes
from glm_core.bench.kernels.case import Case
from glm_core.bench.kernels.contest import Contest
from glm_core.bench.kernels.row import KernelRow, describe, rows_of
from glm_core.bench.kernels.sizes import Sizes
from glm_kernels import keep_freed_memory

logger = logging.getLogger(__name__)

FUSED = fused.CASES | attention.CASES
OPS = (*products.FORMATS, *FUSED, *memory.OPS)
BUDGET_SECONDS = 2.5
"""Of a contest: rounds are left out where it would take longer, but three stay."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how.

    Raises:
        ValueError: a pattern that fits no op.
    """

    device: torch.device
    dtypes: tuple[torch.dtype, ...]
    """Of the fused ops; weight-only products have fp32 activations on a CPU, bf16 on a GPU."""
    only: str = ""
    """Patterns of ops with commas between: parts of a name, or with * and ?; empty for all."""
    rounds: int = 9
    threads: int = 2
    with_compile: bool = True
    budget_seconds: float = BUDGET_SECONDS

    def ops(self) -> tuple[str, ...]:
        """The ops that are measured."""
        patterns = [part.strip() for part in self.only.split(",") if part.strip()]
        if not patterns:
            return OPS
        for pattern in patterns:
            if not any(_fits(op, pattern) for op in OPS):
                raise ValueError(f"--only {pattern} fits no op; there are {', '.join(OPS)}")
        return tuple(op for op in OPS if any(_fits(op, pattern) for pattern in patterns))


def _fits(op: str, pattern: str) -> bool:
    return fnmatchcase(op, pattern) if set(pattern) & set("*?[") else pattern in op


def measure(plan: Plan, of_size: Sizes | None = None) -> Iterator[list[KernelRow]]:
    """Measures everything of a plan, and gives the rows of each kernel once they are there.

    Args:
        plan: what, where and how often.
        of_size: sizes of the tensors; those of the device when None.

    Raises:
        ValueError: a pattern that fits no op.
    """
    ops = plan.ops()
    of_size = of_size or (sizes.CUDA if plan.device.type == "cuda" else sizes.CPU)
    with _threads(plan.threads):
        yield from _measure(plan, ops, of_size)


def _measure(plan: Plan, ops: Sequence[str], of_size: Sizes) -> Iterator[list[KernelRow]]:
    machine, watch = describe(plan.device), stopwatch(plan.device)
    progress = Progress(_count(plan, ops, of_size))
    for contest in _contests(plan, ops, of_size):
        contest.run(plan.rounds, watch, plan.budget_seconds)
        yield rows_of(contest, machine)
        progress.done(f"{contest.op} {contest.shape} {contest.dtype} {contest.part}")
    if memory.WEIGHTS_OP in ops:
        yield list(memory.weights(machine))
        progress.done(memory.WEIGHTS_OP)
    if memory.LOSS_OP in ops:
        for dtype in plan.dtypes:
            yield list(memory.losses(of_size, dtype, plan.device, machine))
            progress.done(memory.LOSS_OP)


def _contests(plan: Plan, ops: Sequence[str], of_size: Sizes) -> Iterator[Contest]:
    formats = [op for op in products.FORMATS if op in ops]
    if formats:
        yield from products.contests(formats, of_size, plan.device, plan.with_compile)
    # As in training, no side pays for page faults of temporaries. Not before the products: of their
    # weights, a few GB for each shape, nothing would be given back.
    if plan.device.type == "cpu":
        keep_freed_memory()
    for dtype in plan.dtypes:
        make = fused.Maker(of_size, dtype, plan.device)
        for op, case in FUSED.items():
            if op in ops:
                torch.manual_seed(0)
                yield from _of(case(make), plan)


def _of(case: Case, plan: Plan) -> Iterator[Contest]:
    yield from case.contests(plan.with_compile)
    if plan.with_compile:
        torch.compiler.reset()  # one op may be compiled only so often, for dtypes and sizes


def _count(plan: Plan, ops: Sequence[str], of_size: Sizes) -> int:
    formats = [op for op in products.FORMATS if op in ops]
    passes = sum(1 if op in attention.FORWARD_ONLY else 2 for op in FUSED if op in ops)
    with_dtypes = (passes + (memory.LOSS_OP in ops)) * len(plan.dtypes)
    return products.count(formats, of_size) + with_dtypes + (memory.WEIGHTS_OP in ops)


class Progress:
    """A line for each finished contest, with the time that is left."""

    def __init__(self, total: int) -> None:
        self.total, self.count, self.started = total, 0, time.monotonic()

    def done(self, what: str) -> None:
        """Counts one more as finished."""
        self.count += 1
        left = (time.monotonic() - self.started) / self.count * (self.total - self.count)
        logger.info("%d/%d %s, eta %.0fs", self.count, self.total, what.strip(), left)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
