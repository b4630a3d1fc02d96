"""Rotary position embedding: 1-D in halves or interleaved pairs, partial, and 2-D."""

from __future__ import annotations

import torch
from torch import Tensor

from glm_kernels import reference
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
    """
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
    """
    out: Tensor = dispatch("apply_rope_2d", x_BTNH.device.type)(
        x_BTNH, cos_BTR, sin_BTR, block_cos_BTR, block_sin_BTR
    )
    return out


register("apply_rope", "torch")(reference.apply_rope)
register("apply_rope_2d", "torch")(reference.apply_rope_2d)
