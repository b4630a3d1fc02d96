"""Every op on every backend against its formula, on whatever hypothesis draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from glm_kernels import available_backends, registered_ops, use_backend
from glm_kernels.cpu import library

from .problems import LAYOUTS, LOW, PROBLEMS, Draw, Problem, laid_out

EVERY = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
DTYPES = {"torch": EVERY, "cpu": EVERY, "triton": (torch.float32, torch.float16)}
"""Triton's interpreter computes wrong numbers with bf16."""
EXAMPLES = {"torch": 25, "cpu": 40, "triton": 5}
CASES = [
    (op, backend)
    for op in PROBLEMS
    for backend in available_backends(op, "cpu")
    if backend != "reference"
]


@dataclass(frozen=True, slots=True)
class Step:
    """What a forward and backward gave, and the gradients it was given."""

    outs: list[Tensor]
    upstream: list[Tensor]
    grads: list[Tensor]


def fuzzed(backend: str, check: Callable[[Draw], None]) -> None:
    """Call `check` with examples drawn for a backend: the same ones every time, none searched for a
    smaller one when it fails, which takes minutes.
    """

    @settings(
        max_examples=EXAMPLES[backend],
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
    )
    @given(st.data())
    def examples(data: st.DataObject) -> None:
        draw = Draw(data, DTYPES[backend])
        with instruction_set(draw, backend):
            check(draw)

    examples()


def instruction_set(draw: Draw, backend: str) -> AbstractContextManager[None]:
    """Any of the compiled paths, where there is one."""
    if backend != "cpu" or library.unavailable() is not None:
        return nullcontext()
    return library.use_isa(draw.one_of(library.available_isas()))


def run(
    problem: Problem,
    inputs: Sequence[Tensor],
    backend: str,
    upstream: Callable[[int, Tensor], Tensor],
) -> Step:
    """Forward and backward; `upstream` gives the gradient of each output."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    with use_backend(backend):
        out = problem.call(*leaves)
        outs = list(out) if isinstance(out, tuple) else [out]
        given_grads = [upstream(index, part.detach()) for index, part in enumerate(outs)]
        grads = torch.autograd.grad(outs, leaves, given_grads)
    return Step([part.detach() for part in outs], given_grads, list(grads))


def moved(x: Tensor, rounding: float = 0.0) -> Tensor:
    """In fp64, every number off by about its rounding, or by a share of the largest of its row."""
    exact = x.double()
    if not exact.numel():
        return exact
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(7)).double()
    size = exact.abs() * torch.finfo(x.dtype).eps
    if rounding:
        size = size + exact.abs().amax(-1, keepdim=True) * rounding
    return exact + size * noise


@pytest.mark.parametrize(("op", "backend"), CASES)
def test_op_equals_formula_when_fuzzed(op: str, backend: str) -> None:
    """The error may be 4 times that of the plain formula in the same dtype, and 4 times what
    rounding the inputs does to the exact result, and 16 units in the last place.
    """

    def check(draw: Draw) -> None:
        problem, layout = PROBLEMS[op](draw), draw.one_of(LAYOUTS)
        x = problem.inputs

        def drawn(index: int, out: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(index)
            return laid_out(torch.randn(out.shape, generator=generator).to(out.dtype), layout)

        ours = run(problem, x, backend, drawn)
        given = ours.upstream
        plain = run(problem, x, "reference", lambda i, out: given[i].to(out.dtype))
        wide = [tensor.double() for tensor in x]
        exact = run(problem, wide, "reference", lambda i, _: given[i].double())
        rounding = problem.rounding if backend == "cpu" else 0.0
        off = [moved(x[0], rounding), *map(moved, x[1:])]
        near = run(problem, off, "reference", lambda i, _: moved(given[i]))
        for parts in zip(ours.outs, plain.outs, exact.outs, near.outs, strict=True):
            agree(*parts, floor=0.0, slack=problem.slack)
        all_grads = list(zip(ours.grads, plain.grads, exact.grads, near.grads, strict=True))
        # PyTorch sums the gradients of a norm's weights in their own dtype (cpu/norm.py)
        is_coarse = backend == "torch" and "layer_norm" in op and draw.dtype in LOW
        for parts in all_grads[: 1 + op.startswith("add_")] if is_coarse else all_grads:
            agree(*parts, floor=problem.slope, slack=0.0)

    fuzzed(backend, check)


def agree(
    found: Tensor, plain: Tensor, exact: Tensor, near: Tensor, floor: float, slack: float
) -> None:
    assert found.shape == exact.shape and found.dtype == plain.dtype
    if not found.numel() or not bool(plain.isfinite().all()):
        return  # the numbers are too large for the dtype
    size = max(float(exact.abs().max()), floor)
    allowed = slack + 16 * size * torch.finfo(found.dtype).eps
    allowed += 4 * float((plain - exact).abs().max()) + 4 * float((near - exact).abs().max())
    error = float((found - exact).abs().max())
    assert error <= allowed, f"{found.dtype} {list(found.shape)}: {error} of {size}, not {allowed}"


@pytest.mark.parametrize(("op", "backend"), CASES)
def test_nan_is_lost_nowhere_and_stays_in_its_row(op: str, backend: str) -> None:
    """Where the formula gives NaN there is NaN; a row without one has none."""

    def check(draw: Draw) -> None:
        problem = PROBLEMS[op](draw)
        first = problem.inputs[0].clone().contiguous()
        if not first.numel():
            return
        first.view(-1)[draw.number(0, first.numel() - 1)] = math.nan
        inputs = [first, *problem.inputs[1:]]
        ours = run(problem, inputs, backend, lambda _, out: torch.ones_like(out)).outs
        # not in bf16: there torch 2.15's matrix product on the CPU takes NaN into the row before
        wide = [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in inputs]
        plain = run(problem, wide, "reference", lambda _, out: torch.ones_like(out)).outs
        for found, expected in zip(ours, plain, strict=True):
            assert not (expected.isnan() & ~found.isnan()).any()
            rows = expected.isnan() if not expected.dim() else expected.isnan().any(-1, True)
            assert not (found.isnan() & ~rows).any()

    fuzzed(backend, check)


def test_every_registered_op_is_fuzzed() -> None:
    assert set(PROBLEMS) == set(registered_ops())
