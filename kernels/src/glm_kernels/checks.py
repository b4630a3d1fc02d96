"""Refusals that the ops have in common. They look at shapes and kinds, never at values."""

from __future__ import annotations

import torch
from torch import Tensor


def check_input(name: str, x: Tensor) -> None:
    """Refuse numbers that are not floating point, and a single number.

    Raises:
        ValueError: names the tensor, its dtype and shape.
    """
    if not x.is_floating_point() or x.dim() == 0:
        raise ValueError(
            f"{name} is {x.dtype} of shape {list(x.shape)}: it must be floating point and have at "
            "least one dimension; convert it with .float(), or with [None]"
        )


def check_beside(name: str, tensor: Tensor, shape: torch.Size, x: Tensor) -> None:
    """Refuse a tensor that does not belong to x.

    Args:
        name: of the tensor, for the message.
        tensor: floating point.
        shape: that it must have.
        x: where it must be.

    Raises:
        ValueError: names the tensor, what it is, and what it must be.
    """
    if tensor.shape != shape or tensor.device != x.device or not tensor.is_floating_point():
        raise ValueError(
            f"{name} is {tensor.dtype} of shape {list(tensor.shape)} on {tensor.device}: with x of "
            f"shape {list(x.shape)} on {x.device} it must be floating point of shape "
            f"{list(shape)} there"
        )


def check_eps(eps: float) -> None:
    """Refuse an eps with which a row of zeros would be divided by zero.

    Raises:
        ValueError: eps is not above 0.
    """
    if not eps > 0:
        raise ValueError(f"eps is {eps}: it must be above 0, such as 1e-5")
