"""Where columns stand: the position ids of a batch, and what a model makes of them.

Position ids are [B, 2, T]: row 0 is the position in the text with each blank collapsed to its mask
token, row 1 the block position, which counts inside a blank. One-dimensional models read row 0.
Source: arXiv 2103.10360, section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glm_core.model.config import Position, RopeLayout, RopePrecision, TransformerConfig
from glm_kernels import apply_rope, apply_rope_2d, reference, rope_tables


def as_2d_positions(position_ids: Tensor | None, input_ids_BT: Tensor, offset: int) -> Tensor:
    """Brings position ids to [B, 2, T].

    Args:
        position_ids: [B, 2, T]; or [B, T], block positions then being 0; or None, which counts on
            from `offset`.
        input_ids_BT: the tokens, for their shape and device.
    """
    batch, length = input_ids_BT.shape
    if position_ids is None:
        position_ids = torch.arange(offset, offset + length, device=input_ids_BT.device)
        position_ids = position_ids.expand(batch, length)
    if position_ids.dim() == 2:
        position_ids = torch.stack([position_ids, torch.zeros_like(position_ids)], dim=1)
    if position_ids.shape != (batch, 2, length):
        raise ValueError(
            f"position_ids has shape {tuple(position_ids.shape)}: for input_ids of shape "
            f"{(batch, length)} it must be {(batch, 2, length)} or {(batch, length)}"
        )
    return position_ids


class LearnedPositions(nn.Module):
    """Learned tables, added to the word embedding: two in GLM, one in CodeGeeX-13B."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        is_2d = config.position == Position.learned_2d
        rows = config.max_position_embeddings + int(is_2d)
        self.position_embeddings = nn.Embedding(rows, config.hidden_size)
        self.block_position_embeddings = nn.Embedding(rows, config.hidden_size) if is_2d else None

    def forward(self, position_ids_B2T: Tensor) -> Tensor:
        """Returns the embedding of the position, or the sum of both, [B, T, D]."""
        position: Tensor = self.position_embeddings(position_ids_B2T[:, 0])
        if self.block_position_embeddings is None:
            return position
        block: Tensor = self.block_position_embeddings(position_ids_B2T[:, 1])
        return position + block


@dataclass(frozen=True)
class Rotation:
    """Rotary tables of one forward, shared by all layers. cos and sin are [B, T, R].

    They are fp32, and x is rotated in fp32; but for `reference_numerics` with a rope_precision.
    """

    cos: Tensor
    sin: Tensor
    block_cos: Tensor | None
    block_sin: Tensor | None
    interleaved: bool
    rounds_each_step: bool = False
    """Rotate by the plain formula, in the dtype that x and tables share, as the originals do."""

    def __call__(self, x_BTNH: Tensor) -> Tensor:
        """Rotates queries or keys."""
        if self.rounds_each_step:
            return self._rotate_plainly(x_BTNH)
        if self.block_cos is None or self.block_sin is None:
            return apply_rope(x_BTNH, self.cos, self.sin, self.interleaved)
        return apply_rope_2d(x_BTNH, self.cos, self.sin, self.block_cos, self.block_sin)

    def _rotate_plainly(self, x_BTNH: Tensor) -> Tensor:
        if self.block_cos is None or self.block_sin is None:
            return reference.apply_rope(x_BTNH, self.cos, self.sin, self.interleaved)
        return reference.apply_rope_2d(x_BTNH, self.cos, self.sin, self.block_cos, self.block_sin)


def build_rotation(
    config: TransformerConfig, position_ids_B2T: Tensor, dtype: torch.dtype = torch.float32
) -> Rotation | None:
    """Computes the rotary tables for a batch; None for learned positions.

    Args:
        dtype: of queries and keys; only `reference_numerics` asks for it.

    Source: arXiv 2104.09864, eq. 15; two-dimensional form: arXiv 2210.02414, appendix B.3.
    """
    if not config.is_rotary:
        return None
    interleaved = config.rope_layout == RopeLayout.interleaved
    dims = config.rotary_dim if config.position == Position.rope else config.head_dim // 2
    positions_B2T = position_ids_B2T
    if config.rope_position_scale != 1.0:
        positions_B2T = position_ids_B2T / config.rope_position_scale
    precision = config.rope_precision if config.reference_numerics else RopePrecision.full
    plain = precision != RopePrecision.full
    cos, sin = _tables(positions_B2T[:, 0], dims, config.rope_theta, precision, dtype)
    if config.position == Position.rope:
        return Rotation(cos, sin, None, None, interleaved, plain)
    block = _tables(positions_B2T[:, 1], dims, config.rope_theta, precision, dtype)
    return Rotation(cos, sin, *block, interleaved, plain)


def _tables(
    positions_BT: Tensor, dims: int, theta: float, precision: RopePrecision, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns cos and sin, rounded where `precision` says."""
    if precision == RopePrecision.full:
        return rope_tables(positions_BT, dims, theta)
    if precision == RopePrecision.tables:
        return rope_tables(positions_BT, dims, theta, dtype)
    exponent_R = torch.arange(0, dims, 2, device=positions_BT.device).float() / dims
    frequency_R = (1.0 / theta**exponent_R).half()
    # bf16, too, counts in fp16: of positions above 256 it knows every second one at best.
    angle_dtype = torch.float32 if dtype == torch.float32 else torch.float16
    angle_BTR = positions_BT[..., None].to(angle_dtype) * frequency_R.to(angle_dtype)
    return angle_BTR.cos().to(dtype), angle_BTR.sin().to(dtype)
