"""Every op on every backend against its formula, on whatever hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from glm_kernels import available_backends, registered_ops, use_backend

from .problems import LAYOUTS, PROBLEMS, Draw, Problem, laid_out

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
        check(Draw(data, DTYPES[backend]))

    examples()


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
    rounding the inputs does to the exact result, and 8 units in the last place.
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
        for parts in zip(ours.grads, plain.grads, exact.grads, near.grads, strict=True):
            agree(*parts, floor=problem.slope, slack=0.0)

    fuzzed(backend, check)


def agree(
    found: Tensor, plain: Tensor, exact: Tensor, near: Tensor, floor: float, slack: float
) -> None:
    assert found.shape == exact.shape and found.dtype == plain.dtype
    if not found.numel():
        return
    size = max(float(exact.abs().max()), floor)
    allowed = slack + 8 * size * torch.finfo(found.dtype).eps
    allowed += 4 * float((plain - exact).abs().max()) + 4 * float((near - exact).abs().max())
    error = float((found - exact).abs().max())
    assert error <= allowed, f"{found.dtype} {list(found.shape)}: {error} of {size}, not {allowed}"


def test_every_registered_op_is_fuzzed() -> None:
    assert set(PROBLEMS) == set(registered_ops())
