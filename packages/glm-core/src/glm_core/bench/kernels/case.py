"""A fused op and its peers on the same inputs, as two contests: forward, forward+backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from glm_core.bench.clock import Call
from glm_core.bench.kernels.contest import Contender, Contest, peer
from glm_core.bench.kernels.goal import FUSED, Goal

Op = Callable[..., Any]
"""Takes the inputs of the case; returns a tensor or several."""

FORWARD, BACKWARD = "forward", "forward+backward"
COMPILED = "torch.compile"


@dataclass(kw_only=True)
class Case:
    """One op at one shape."""

    op: str
    shape: str
    dtype: torch.dtype
    inputs: tuple[Tensor, ...]
    ours: Op
    code: str
    """Our implementation that `ours` comes to."""
    formula: Op
    """Common model code; runs as it is, and through torch.compile."""
    peers: dict[str, Op] = field(default_factory=dict)
    compiled: dict[str, Op] = field(default_factory=dict)
    """Peers that go through the compiler by themselves."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why a peer has nothing to compare, by its name."""
    goal: Goal = FUSED
    """Counts on a GPU; on a CPU torch.compile's own vector code is compared without one."""

    def contests(self, with_compile: bool) -> Iterator[Contest]:
        """The op alone, then with its gradients where an input wants one."""
        sides, refused = {"formula": self.formula, **self.peers}, dict(self.refused)
        if with_compile:
            sides |= {COMPILED: torch.compile(self.formula, dynamic=False), **self.compiled}
        else:
            refused |= dict.fromkeys([COMPILED, *self.compiled], "left out by --no-compile")
        steps = [(FORWARD, self.forward), (BACKWARD, self.backward)]
        goal = self.goal if self.inputs[0].device.type == "cuda" else None
        for part, step in steps[: 1 + any(tensor.requires_grad for tensor in self.inputs)]:
            mine = step(self.ours)
            mine()
            yield Contest(
                op=self.op,
                part=part,
                shape=self.shape,
                dtype=name_of(self.dtype),
                ours=[Contender("ours", [mine], code=self.code)],
                peers=[
                    *(peer(name, _calls(step, op), goal=goal) for name, op in sides.items()),
                    *(Contender(name, [], reason=why) for name, why in refused.items()),
                ],
            )

    def forward(self, op: Op) -> Call:
        """A call that computes the result and no graph; no input wants a gradient."""
        inputs = tuple(tensor.detach() for tensor in self.inputs)

        def run() -> None:
            with torch.no_grad():
                op(*inputs)

        return run

    def backward(self, op: Op) -> Call:
        """A call that computes the result and the gradients of all inputs that want one."""
        leaves = [tensor for tensor in self.inputs if tensor.requires_grad]
        with torch.no_grad():
            grads = [torch.randn_like(out) for out in outputs(op(*self.inputs))]

        def run() -> None:
            torch.autograd.backward(outputs(op(*self.inputs)), grads)
            for leaf in leaves:
                leaf.grad = None

        return run


def outputs(result: Any) -> tuple[Tensor, ...]:
    """The tensors that an op returned."""
    return result if isinstance(result, tuple) else (result,)


def name_of(dtype: torch.dtype) -> str:
    """`float32` and so on."""
    return str(dtype).removeprefix("torch.")


def _calls(step: Callable[[Op], Call], op: Op) -> Callable[[], list[Call]]:
    return lambda: [step(op)]
