"""Rotary position embedding: 1-D in halves or interleaved pairs, partial, and 2-D."""

from __future__ import annotations

import torch
from torch import Tensor

from glm_kernels import reference
from glm_kernels.checks import check_input
from glm_kernels.registry import dispatch, register


def rope_tables(
    position_ids: Tensor, rotary_dim: int, theta: float, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines that `apply_rope` takes.

    Args:
        position_ids: [..., T] integers.
        rotary_dim: dims of a head that are rotated, even.
        theta: base of the frequencies, 10000 in most models.
        dtype: dtype of the tables.

    Returns:
        (cos, sin), each [..., T, rotary_dim / 2].

    Raises:
        ValueError: rotary_dim is odd or not positive.
    """
    if rotary_dim <= 0 or rotary_dim % 2:
        raise ValueError(f"rotary_dim={rotary_dim} must be positive and even: dims turn in pairs")
    device = position_ids.device
    exponent_R = torch.arange(0, rotary_dim, 2, device=device, dtype=torch.float32) / rotary_dim
    inverse_frequency_R = 1.0 / theta**exponent_R
    angle_TR = position_ids[..., None].float() * inverse_frequency_R
    return angle_TR.cos().to(dtype), angle_TR.sin().to(dtype)


def apply_rope(
    x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, interleaved: bool = False
) -> Tensor:
    """Rotate the first 2R dims of each head by its position; leave the rest as it is.

    Args:
        x_BTNH: [B, T, N, H] queries or keys, H >= 2R.
        cos_BTR: [B, T, R] or anything that broadcasts to it, from `rope_tables`.
        sin_BTR: as cos_BTR.
        interleaved: pairs are dims (2i, 2i + 1) when True, (i, i + R) when False (NeoX).

    Returns:
        [B, T, N, H], dtype of x.

    Raises:
        ValueError: x is not floating point, or the tables do not fit it.
    """
    _check(x_BTNH, cos_BTR, sin_BTR)
    if 2 * cos_BTR.shape[-1] > x_BTNH.shape[-1]:
        raise ValueError(
            f"the tables rotate {2 * cos_BTR.shape[-1]} dims but a head of x has "
            f"{x_BTNH.shape[-1]}: make the tables with a smaller rotary_dim"
        )
    out: Tensor = dispatch("apply_rope", x_BTNH.device.type)(x_BTNH, cos_BTR, sin_BTR, interleaved)
    return out


def apply_rope_2d(
    x_BTNH: Tensor, cos_BTR: Tensor, sin_BTR: Tensor, block_cos_BTR: Tensor, block_sin_BTR: Tensor
) -> Tensor:
    """Rotate the first half of each head by position, the second half by block position.

    Args:
        x_BTNH: [B, T, N, H] queries or keys, H = 4R.
        cos_BTR: [B, T, R] tables of the positions, with rotary_dim = H / 2.
        sin_BTR: as cos_BTR.
        block_cos_BTR: [B, T, R] tables of the block positions.
        block_sin_BTR: as block_cos_BTR.

    Returns:
        [B, T, N, H], dtype of x.

    Raises:
        ValueError: x is not floating point, or the tables do not fit it.
    """
    for cos, sin in ((cos_BTR, sin_BTR), (block_cos_BTR, block_sin_BTR)):
        _check(x_BTNH, cos, sin)
        if 4 * cos.shape[-1] != x_BTNH.shape[-1]:
            raise ValueError(
                f"the tables rotate {2 * cos.shape[-1]} dims but a head of x has "
                f"{x_BTNH.shape[-1]}: make them with a rotary_dim of half a head"
            )
    out: Tensor = dispatch("apply_rope_2d", x_BTNH.device.type)(
        x_BTNH, cos_BTR, sin_BTR, block_cos_BTR, block_sin_BTR
    )
    return out


def _check(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    check_input("x", x)
    sizes = zip(reversed(cos.shape[:-1]), reversed(x.shape[:-2]), strict=False)
    if (
        cos.shape != sin.shape
        or cos.device != x.device
        or sin.device != x.device
        or not 1 <= cos.dim() < x.dim()
        or not all(size in (1, full) for size, full in sizes)
    ):
        raise ValueError(
            f"cos has shape {list(cos.shape)} on {cos.device} and sin {list(sin.shape)} on "
            f"{sin.device}: with x of shape {list(x.shape)} on {x.device} both must be on its "
            "device and broadcast to its [B, T, R], all but the heads"
        )


register("apply_rope", "torch")(reference.apply_rope)
register("apply_rope_2d", "torch")(reference.apply_rope_2d)
