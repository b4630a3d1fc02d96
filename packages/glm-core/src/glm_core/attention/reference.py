"""Attention weights in the order of operations of the released models' own code.

Mathematically these are all one softmax. In half precision each step rounds, and each family
scales and masks at other steps. They are for comparing with the originals; the backends in
BACKENDS round less.

Letters: B batch, T query columns, S key columns, N heads, H head size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from glm_core.attention.backend import Scaling
from glm_core.attention.eager import EagerAttention

FP16_MIN = -65504.0


class FillBeforeCoefficient(EagerAttention):
    """GLM-130B and ChatGLM-6B: hidden scores become -10000 before the coefficient multiplies them.

    Source: SwissArmyTransformer, glm130B_model.py; ChatGLM-6B, modeling_chatglm.py.
    """

    name = "fill_before_coefficient"

    def weights(self, q_BNTH: Tensor, k_BNSH: Tensor, mask: Tensor, scaling: Scaling) -> Tensor:
        q_BNTH = q_BNTH / (scaling.coefficient / scaling.scale)
        scores_BNTS = torch.matmul(q_BNTH, k_BNSH.transpose(-1, -2))
        scores_BNTS = scores_BNTS.masked_fill(~mask, -10000.0).float() * scaling.coefficient
        return torch.softmax(scores_BNTS, dim=-1).to(q_BNTH.dtype)


class MultiplyMask(EagerAttention):
    """GLM: scores times the mask, minus 65504 where hidden; softmax in the scores' dtype.

    With PB-relax (coefficient > 1) both factors are scaled down, and the row's maximum is taken
    off before the coefficient multiplies. Source: THUDM/GLM, mpu/transformer.py.
    """

    name = "multiply_mask"

    def weights(self, q_BNTH: Tensor, k_BNSH: Tensor, mask: Tensor, scaling: Scaling) -> Tensor:
        c = scaling.coefficient
        if c > 1.0:
            q_BNTH = q_BNTH / math.sqrt(c)
        keys_BNHS = k_BNSH.transpose(-1, -2) / (math.sqrt(c) / scaling.scale)
        visible = mask.to(q_BNTH.dtype)
        scores_BNTS = torch.matmul(q_BNTH, keys_BNHS) * visible
        if c > 1.0:
            scores_BNTS = (scores_BNTS - scores_BNTS.amax(dim=-1, keepdim=True)) * c
        return torch.softmax(scores_BNTS + FP16_MIN * (1.0 - visible), dim=-1)


class ScaleProduct(EagerAttention):
    """CodeGeeX-13B: the product is rounded, then scaled; 10000 is taken off where hidden.

    Source: THUDM/CodeGeeX, codegeex/torch/codegeex_model.py.
    """

    name = "scale_product"

    def weights(self, q_BNTH: Tensor, k_BNSH: Tensor, mask: Tensor, scaling: Scaling) -> Tensor:
        scores_BNTS = torch.matmul(q_BNTH, k_BNSH.transpose(-1, -2)) / (1.0 / scaling.scale)
        scores_BNTS = scores_BNTS.float() - (~mask).float() * 10000.0
        return torch.softmax(scores_BNTS, dim=-1).to(q_BNTH.dtype)


REFERENCE_BACKENDS: dict[str, EagerAttention] = {
    backend.name: backend for backend in (FillBeforeCoefficient(), MultiplyMask(), ScaleProduct())
}
"""By the value of `config.score_order`."""


def reference_backend(score_order: str, asked_for: str) -> EagerAttention | None:
    """Returns the backend of an order of operations, or None where the fused ones do.

    Args:
        score_order: value of `config.score_order`.
        asked_for: the attention backend that the user chose, or auto.

    Raises:
        ValueError: the user chose a backend, and the order needs its own.
    """
    backend = REFERENCE_BACKENDS.get(score_order)
    if backend is not None and asked_for != "auto":
        raise ValueError(
            f"attention backend {asked_for!r} cannot be used: model.reference_numerics computes "
            f"scores in the order {score_order}; choose auto, or turn it off"
        )
    return backend
