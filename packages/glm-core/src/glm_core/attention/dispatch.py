"""Chooses an attention backend, once per forward."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from glm_core.attention.backend import AttentionBackend, MaskRequest, Scaling
from glm_core.attention.eager import EagerAttention
from glm_core.attention.flex import FlexAttention
from glm_core.attention.sdpa import SdpaAttention
from glm_core.attention.spec import Causal, Full

logger = logging.getLogger(__name__)

BACKENDS: dict[str, AttentionBackend] = {
    backend.name: backend for backend in (EagerAttention(), SdpaAttention(), FlexAttention())
}


@dataclass(frozen=True)
class PreparedAttention:
    """A backend together with its form of the mask: what each layer calls."""

    backend: AttentionBackend
    mask: Any

    def __call__(
        self,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        scaling: Scaling,
        dropout: float = 0.0,
    ) -> Tensor:
        """Returns the weighted values, [B, T, N, H]."""
        return self.backend.attend(self.mask, q_BTNH, k_BSKH, v_BSKH, scaling, dropout)


def prepare_attention(
    request: MaskRequest, name: str = "auto", dropout: float = 0.0
) -> PreparedAttention:
    """Chooses the backend and builds its mask.

    Args:
        name: `auto`, or a key of BACKENDS.
        dropout: probability of dropping an attention weight.

    Raises:
        ValueError: the name is unknown, or the named backend cannot serve the request. `auto`
            falls back instead, with one warning that gives the reason.
    """
    if name not in ("auto", *BACKENDS):
        raise ValueError(
            f"attention backend {name!r} is unknown: choose auto, {', '.join(BACKENDS)}"
        )
    backend = BACKENDS[_preferred(request) if name == "auto" else name]
    reason = backend.why_not(request, dropout)
    if reason is not None:
        if name != "auto":
            raise ValueError(f"attention backend {name!r} cannot be used: {reason}; choose auto")
        _warn_once(f"attention falls back from {backend.name} to sdpa: {reason}")
        backend = BACKENDS["sdpa"]
    return PreparedAttention(backend, backend.prepare(request))


def _preferred(request: MaskRequest) -> str:
    """flex for training on a GPU with a mask that has blocks to skip, otherwise sdpa.

    flex compiles for each shape: worth it where shapes repeat, not for prompts of all lengths.
    """
    structured = not isinstance(request.spec, Causal | Full)
    trains_on_gpu = request.device.type == "cuda" and torch.is_grad_enabled()
    return "flex" if structured and trains_on_gpu else "sdpa"


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)
