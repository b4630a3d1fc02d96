"""The two normalisations, as modules over glm_kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from glm_core.model.config import Norm, TransformerConfig
from glm_kernels import add_layer_norm, add_rms_norm, layer_norm, rms_norm

Normed = Tensor | tuple[Tensor, Tensor]
"""The norm of x; given a residual stream, the norm of their sum, and that sum."""


class RmsNorm(nn.Module):
    """x / rms(x) * weight, the variance in fp32. Source: arXiv 1910.07467, eq. 4."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x_BTD: Tensor, residual_BTD: Tensor | None = None) -> Normed:
        if residual_BTD is not None:
            return add_rms_norm(x_BTD, residual_BTD, self.weight, self.eps)
        return rms_norm(x_BTD, self.weight, self.eps)


class LayerNorm(nn.Module):
    """(x - mean) / std * weight + bias. Source: arXiv 1607.06450, eq. 4."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x_BTD: Tensor, residual_BTD: Tensor | None = None) -> Normed:
        if residual_BTD is not None:
            return add_layer_norm(x_BTD, residual_BTD, self.weight, self.bias, self.eps)
        return layer_norm(x_BTD, self.weight, self.bias, self.eps)


class SingleLayerNorm(LayerNorm):
    """A LayerNorm whose weights stay fp32 whatever the model becomes; its output has x's dtype."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SingleLayerNorm:
        def kept(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            return changed if changed.dtype == tensor.dtype else tensor.to(changed.device)

        super()._apply(kept, recurse)  # type: ignore[no-untyped-call]
        return self


def build_norm(config: TransformerConfig) -> nn.Module:
    """Returns a fresh norm of the configured kind, over hidden_size."""
    kind: Callable[[int, float], nn.Module] = LayerNorm
    if config.norm == Norm.rmsnorm:
        kind = RmsNorm
    elif config.has_single_norms:
        kind = SingleLayerNorm
    return kind(config.hidden_size, config.norm_eps)
