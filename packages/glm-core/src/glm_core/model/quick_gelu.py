"""The quick GELU as CodeGeeX-13B's own code rounds it."""

from __future__ import annotations

import torch
from torch import Tensor


def quick_gelu_in_steps(x: Tensor) -> Tensor:
    """Computes x sigmoid(1.702 x) without a large exponential, each step rounded to x's dtype.

    In fp32 it is the same number as the fused op's. In half precision its seven roundings are what
    the released model was run with; glm_kernels rounds once.

    Source: THUDM/CodeGeeX, codegeex/torch/codegeex_model.py (the formula of MindSpore's FastGelu).
    """
    size = torch.abs(x)
    return x / (1 + torch.exp(-1.702 * size)) * torch.exp(0.851 * (x - size))
