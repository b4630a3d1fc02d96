"""Tiny members of every family: the algebra of a published preset at a size for tests."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from glm_core.model import Residual, Transformer, TransformerConfig
from glm_core.model.presets import preset

TINY_FAMILIES = (
    "glm-base",
    "glm-130b",
    "chatglm-6b",
    "chatglm2-6b",
    "glm-4-9b",
    "glm-4-9b-0414",
    "llama-7b",
    "codegeex-13b",
)
"""One preset per way of computing: what other presets differ in is size alone."""


def tiny_config(family: str, **changes: Any) -> TransformerConfig:
    """Returns a preset shrunk to two layers of four heads of eight dims.

    Args:
        family: name of a preset, e.g. one of TINY_FAMILIES.
        changes: fields to set after shrinking.

    Raises:
        ValueError: no preset has this name, or the changed config is not valid.
    """
    big = preset(family)
    head_dim = changes.get("head_dim", 8)
    layers, heads = changes.get("num_layers", 2), changes.get("num_heads", 4)
    small: dict[str, Any] = {
        "vocab_size": 67,
        "hidden_size": heads * head_dim,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": 2 if big.num_kv_heads < big.num_heads else heads,
        "head_dim": head_dim,
        "ffn_hidden_size": 44,
        "max_position_embeddings": 48,
        "init_std": 0.1,
    }
    if big.is_rotary:
        small["rotary_dim"] = head_dim * big.rotary_dim // big.head_dim
    if big.residual == Residual.deepnorm:
        small["residual_scale"] = math.sqrt(2 * layers)
    return replace(big, **{**small, **changes})


def tiny_model(
    family: str, seed: int = 0, attention_backend: str = "auto", **changes: Any
) -> Transformer:
    """Returns a tiny model with every parameter random, in eval mode."""
    model = Transformer(tiny_config(family, **changes), attention_backend)
    randomize(model, seed)
    return model.eval()


@torch.no_grad()
def randomize(model: torch.nn.Module, seed: int) -> None:
    """Makes every parameter matter: biases that are not 0, norm weights that are not 1.

    Matrices are Normal(0, 1 / columns), so that activations keep their size; embeddings
    Normal(0, 1).
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.dim() == 1:
            value = 0.2 * noise + (1.0 if name.endswith("norm.weight") else 0.0)
        elif "embedding" in name:
            value = noise
        else:
            value = noise / math.sqrt(parameter.shape[1])
        parameter.copy_(value)
