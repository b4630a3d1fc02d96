"""Calls of the compiled operations: their arguments packed as native/ops_abi.h lays them out."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glm_kernels.cpu import library
from glm_kernels.registry import CPU_PRIORITY, Implementation, ImplementationT, dispatch, register

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Their numbers in native/abi.h."""

_PLAIN = (Tensor, torch.nn.Parameter)
"""Tensors that have their numbers in memory, as other subclasses may not."""

_LAYOUTS = {
    "norm": struct.Struct("8P4qf7i"),
    "norm_backward": struct.Struct("9P6q4i"),
    "rope": struct.Struct("6P12qf3i"),
    "gate": struct.Struct("3P3q4i"),
    "attention": struct.Struct("6P16qf3i"),
}


@cache
def _function(operation: str) -> Callable[[bytes, int], None]:
    function = library.library()[f"glm_{operation}"]
    function.argtypes = (ctypes.c_char_p, ctypes.c_int32)
    function.restype = None
    return function


def call(operation: str, *arguments: float) -> None:
    """Call a compiled operation with the fields of its struct but the last, the threads."""
    packed = _LAYOUTS[operation].pack(*arguments, torch.get_num_threads())
    _function(operation)(packed, library.isa())


def address(tensor: Tensor | None) -> int:
    """Return where a tensor's numbers begin; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def empty_beside(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a new contiguous tensor of the shape of x."""
    if x.dtype == dtype and x.is_contiguous():
        return torch.empty_like(x)  # a third of the time of new_empty
    return x.new_empty(x.shape, dtype=dtype)


def rows_of(x: Tensor) -> tuple[Tensor, int]:
    """Return x, or a copy, as rows of its last dimension, and how far apart they are."""
    if x.is_contiguous():
        return x, x.shape[-1]
    rows = x.reshape(-1, x.shape[-1])
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    return rows, rows.stride(0)


class Form(Enum):
    """How an operation runs: what its tensors ask for."""

    formula = 0
    """As PyTorch's own operations: the compiled one cannot read these tensors."""
    direct = 1
    """A plain call."""
    recorded = 2
    """As a `torch.autograd.Function`: somebody needs gradients."""
    traced = 3
    """As a custom op of PyTorch (``torch.ops.glm_kernels``), for torch.compile and export."""


def form_of(*tensors: Tensor | None) -> Form:
    """Return the form in which an operation takes these tensors."""
    tracing = torch.compiler.is_compiling()
    wanted = False
    for x in tensors:
        if x is None:
            continue
        if x.dtype not in DTYPES or not x.is_cpu or not (tracing or type(x) in _PLAIN):
            return Form.formula
        wanted = wanted or x.requires_grad
    if tracing:
        return Form.traced
    return Form.recorded if wanted and torch.is_grad_enabled() else Form.direct


def compiled(op: str) -> Callable[[ImplementationT], ImplementationT]:
    """Return the decorator of an op's compiled implementation.

    torch.compile fuses the plain formula with what stands around it, and is left to do so.
    """
    return register(
        op,
        "cpu",
        devices={"cpu"},
        priority=CPU_PRIORITY,
        unavailable=library.unavailable,
        left_to_compiler=True,
    )


def formula(op: str) -> Implementation:
    """Return PyTorch's form of an op, for what the compiled one is not made for."""
    return dispatch(op, "cpu", "torch")


class Operation:
    """A compiled operation in the forms that `form_of` tells apart, but the formula.

    Args:
        name: of the custom op.
        forward: tensors in, new tensors out.
        fake: the same of tensors without numbers.
        backward: of ctx and the gradients of what `forward` gives.
        keep: keeps in ctx what `backward` needs of the inputs and the outputs.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        fake: Callable[..., Any],
        backward: Callable[..., Any] | None = None,
        keep: Callable[..., None] | None = None,
    ) -> None:
        self.direct = forward
        self.traced = torch.library.custom_op(f"glm_kernels::{name}", forward, mutates_args=())
        self.traced.register_fake(fake)
        if backward is not None and keep is not None:
            self.traced.register_autograd(backward, setup_context=keep)
            self.recorded = _recorded(name, forward, backward, keep)

    def __call__(self, form: Form, *arguments: Any) -> Any:
        return getattr(self, form.name)(*arguments)

    def of_gradients(self, grad: Tensor, *arguments: Any) -> Any:
        """Call it in a backward, which torch.compile may be tracing."""
        plain = type(grad) in _PLAIN and not torch.compiler.is_compiling()
        return (self.direct if plain else self.traced)(grad, *arguments)


def _recorded(
    name: str,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    keep: Callable[..., None],
) -> Callable[..., Any]:
    """Return the operation as an autograd function.

    One with a `setup_context` of its own costs twice as much to call.
    """

    def forward_and_keep(ctx: Any, *arguments: Any) -> Any:
        outputs = forward(*arguments)
        keep(ctx, arguments, outputs)
        return outputs

    members = {
        "forward": staticmethod(forward_and_keep),
        "backward": staticmethod(once_differentiable(backward)),
    }
    function: Any = type(name, (torch.autograd.Function,), members)
    apply: Callable[..., Any] = function.apply
    return apply
