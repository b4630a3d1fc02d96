"""Activations of the feed-forward block."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from glm_kernels import reference
from glm_kernels.checks import check_input
from glm_kernels.registry import dispatch, register

Approximate = Literal["tanh", "none"]
GeluForm = Literal["tanh", "none", "quick"]
Half = Literal["first", "second"]


def gelu(x: Tensor, approximate: GeluForm) -> Tensor:
    """Gaussian error linear unit.

    Args:
        x: any shape.
        approximate: "tanh" for the tanh formula (GLM, ChatGLM-6B), "none" for erf (GLM-130B),
            "quick" for x sigmoid(1.702 x) (CodeGeeX-13B).

    Returns:
        shape and dtype of x.

    Raises:
        ValueError: x is not floating point, or there is no such form.
    """
    _check_choice("approximate", approximate, ("tanh", "none", "quick"))
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}: it must be floating point; convert it with .float()")
    out: Tensor = dispatch("gelu", x.device.type)(x, approximate)
    return out


def geglu(x_2F: Tensor, activated: Half, approximate: Approximate) -> Tensor:
    """``gelu(one half) * other half`` of the last dimension.

    Args:
        x_2F: [..., 2F].
        activated: which half goes through gelu: "second" in GLM-130B.
        approximate: formula of `gelu`.

    Returns:
        [..., F], dtype of x.

    Raises:
        ValueError: x is not floating point, its last dimension is odd, or there is no such form.
    """
    _check_choice("activated", activated, ("first", "second"))
    _check_choice("approximate", approximate, ("tanh", "none"))
    _check_halves(x_2F)
    out: Tensor = dispatch("geglu", x_2F.device.type)(x_2F, activated, approximate)
    return out


def swiglu(x_2F: Tensor) -> Tensor:
    """``silu(first half) * second half`` of the last dimension.

    Args:
        x_2F: [..., 2F].

    Returns:
        [..., F], dtype of x.

    Raises:
        ValueError: x is not floating point, or its last dimension is odd.
    """
    _check_halves(x_2F)
    out: Tensor = dispatch("swiglu", x_2F.device.type)(x_2F)
    return out


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: it can be {', '.join(choices)}")


def _check_halves(x_2F: Tensor) -> None:
    check_input("x", x_2F)
    if x_2F.shape[-1] % 2:
        raise ValueError(
            f"x has shape {list(x_2F.shape)}: its last dimension must be even, gate and value side "
            "by side"
        )


@register("gelu", "torch")
def _gelu(x: Tensor, approximate: GeluForm) -> Tensor:
    if approximate == "quick":
        return reference.gelu(x, approximate)
    return F.gelu(x, approximate=approximate)


@register("geglu", "torch")
def _geglu(x_2F: Tensor, activated: Half, approximate: Approximate) -> Tensor:
    first, second = x_2F.chunk(2, dim=-1)
    gate, value = (first, second) if activated == "first" else (second, first)
    return F.gelu(gate, approximate=approximate) * value


@register("swiglu", "torch")
def _swiglu(x_2F: Tensor) -> Tensor:
    gate, value = x_2F.chunk(2, dim=-1)
    return F.silu(gate) * value
