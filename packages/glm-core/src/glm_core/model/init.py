"""Fresh weights, as the papers draw them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from glm_core.model.config import Residual
from glm_core.model.norm import LayerNorm, RmsNorm

if TYPE_CHECKING:
    from glm_core.model.transformer import Block, Transformer


@torch.no_grad()
def init_weights(model: Transformer, seed: int) -> None:
    """Draws fresh weights, the same for the same seed.

    Normal(0, init_std); projections into the residual stream are divided by sqrt(2 L). With
    deepnorm instead: Xavier-normal, gain 1/sqrt(2 L) on the value, output and feed-forward
    projections, biases 0. Sources: arXiv 2103.10360, 3.1; arXiv 2210.02414, section 2.1.
    """
    config = model.config
    generator = torch.Generator(device=model.word_embeddings.weight.device).manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, config.init_std, generator=generator)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.zero_()
        if isinstance(module, LayerNorm | RmsNorm):
            module.weight.fill_(1.0)
        if isinstance(module, LayerNorm):
            module.bias.zero_()
    depth_gain = 1.0 / math.sqrt(2.0 * config.num_blocks)
    for block in model.blocks():
        if config.residual == Residual.deepnorm:
            _init_deepnorm(block, depth_gain, generator)
        else:
            block.attention.dense.weight.mul_(depth_gain)
            block.mlp.dense_4h_to_h.weight.mul_(depth_gain)


def _init_deepnorm(block: Block, gain: float, generator: torch.Generator) -> None:
    attention, mlp = block.attention, block.mlp
    for linear in (attention.query_key_value, attention.dense, mlp.dense_h_to_4h):
        nn.init.xavier_normal_(linear.weight, generator=generator)
    nn.init.xavier_normal_(mlp.dense_4h_to_h.weight, generator=generator)
    for linear in (attention.dense, mlp.dense_h_to_4h, mlp.dense_4h_to_h):
        linear.weight.mul_(gain)
    # Splitting the row numbers of the fused projection, as it is split, tells the value rows.
    rows = torch.arange(
        attention.query_key_value.out_features, device=attention.dense.weight.device
    )
    _, _, value_rows = attention.split(rows[None, None])
    attention.query_key_value.weight[value_rows.flatten()] *= gain
