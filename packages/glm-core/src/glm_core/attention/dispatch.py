"""Chooses an attention backend, once per forward."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from glm_core.attention.backend import AttentionBackend, MaskRequest, Scaling
from glm_core.attention.eager import EagerAttention
from glm_core.attention.flex import FlexAttention
from glm_core.attention.sdpa import SdpaAttention
from glm_core.attention.spec import Causal, Full
from glm_core.attention.triton import TritonAttention

logger = logging.getLogger(__name__)

BACKENDS: dict[str, AttentionBackend] = {
    backend.name: backend
    for backend in (EagerAttention(), SdpaAttention(), FlexAttention(), TritonAttention())
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
    if name != "auto":
        reason = BACKENDS[name].why_not(request, dropout)
        if reason is not None:
            raise ValueError(f"attention backend {name!r} cannot be used: {reason}; choose auto")
        return PreparedAttention(BACKENDS[name], BACKENDS[name].prepare(request))
    candidates = _preferred(request)
    for candidate, after in pairwise(candidates):
        reason = BACKENDS[candidate].why_not(request, dropout)
        if reason is None:
            return PreparedAttention(BACKENDS[candidate], BACKENDS[candidate].prepare(request))
        _warn_once(f"attention falls back from {candidate} to {after}: {reason}")
    last = BACKENDS[candidates[-1]]
    return PreparedAttention(last, last.prepare(request))


def _preferred(request: MaskRequest) -> tuple[str, ...]:
    """Backends from the best to the one that takes every request.

    On a GPU with a mask that has blocks to skip: triton, or flex for training. flex compiles for
    each shape: worth it where shapes repeat, not for prompts of all lengths. sdpa otherwise.
    """
    structured = not isinstance(request.spec, Causal | Full)
    if request.device.type != "cuda" or not structured:
        return ("sdpa",)
    return ("triton", "flex", "sdpa") if torch.is_grad_enabled() else ("triton", "sdpa")


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)
