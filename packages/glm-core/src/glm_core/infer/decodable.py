"""What the fast decode steps ask of a model before they take its forward's place."""

from __future__ import annotations

import torch
from torch import nn

from glm_core.model.norm import LayerNorm, RmsNorm
from glm_core.model.positions import LearnedPositions
from glm_core.model.top_query import TopQuery
from glm_core.model.transformer import Attention, Block, FeedForward, Transformer
from glm_core.quantize import QuantizedEmbedding, QuantizedLinear

_KNOWN = (
    Transformer,
    LearnedPositions,
    Block,
    Attention,
    FeedForward,
    TopQuery,
    RmsNorm,
    LayerNorm,
    nn.Linear,
    nn.Embedding,
    QuantizedLinear,
    QuantizedEmbedding,
)


def why_not_decodable(model: Transformer) -> str | None:
    """Returns why a column is not what a model's weights alone make of it, or None when it is."""
    if model.training:
        return "it is in training mode"
    if model.config.reference_numerics:
        return "it rounds as the original code does"
    if model.attention_backend != "auto":
        return f"attention backend {model.attention_backend} was chosen by name"
    device = model.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return "autocast is on"
    # A tuned prefix has done its work when its columns are in the cache.
    done = set() if model.prefix is None else set(model.prefix.modules())
    for module in model.modules():
        if isinstance(module, nn.ModuleList | nn.Dropout) or module in done:
            continue
        hooks = module._forward_hooks or module._forward_pre_hooks
        if type(module) not in _KNOWN or hooks or "forward" in vars(module):
            return f"it has a {type(module).__name__} of its own kind, or with hooks"
    return None
