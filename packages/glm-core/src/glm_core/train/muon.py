"""Muon for the matrices inside a model, AdamW for everything else.

Muon moves a matrix by its orthogonalised momentum: all directions of an update are equally large.
A small model needs about half the tokens for the same loss.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); scaled to
the root mean square of AdamW's updates as in arXiv 2502.16982, equation 4.

Letters: O rows and I columns of a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: they grow small singular values fastest."""
_ITERATIONS = 5
_LIKE_ADAMW = 0.2
"""Root mean square of an update of AdamW, about."""


class MuonAdamW(torch.optim.AdamW):
    """One optimizer over both kinds of parameters, with the interface of a fused AdamW.

    Args:
        matrices: parameters [O, I] that Muon moves.
        groups: AdamW's parameter groups.
        weight_decay: of the matrices.
        settings: of AdamW; `lr` is everybody's.
    """

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        groups: Sequence[dict[str, Any]],
        *,
        weight_decay: float,
        **settings: Any,
    ) -> None:
        super().__init__(groups, weight_decay=weight_decay, **settings)
        self._num_adamw = len(self.param_groups)
        self.add_param_group({"params": list(matrices), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; `grad_scale` divides the gradients and `found_inf` skips, as in AdamW."""
        groups = self.param_groups
        self.param_groups = groups[: self._num_adamw]
        try:
            super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups[self._num_adamw :]:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._step(matrix, group["lr"], group["weight_decay"])

    def _step(self, matrix_OI: nn.Parameter, lr: float, weight_decay: float) -> None:
        state = self.state[matrix_OI]
        if not state:
            state["step"] = torch.zeros((), device=matrix_OI.device)
            state["exp_avg"] = torch.zeros_like(matrix_OI)
        scale: Tensor | None = getattr(self, "grad_scale", None)
        skipped: Tensor | None = getattr(self, "found_inf", None)
        assert matrix_OI.grad is not None
        gradient_OI = matrix_OI.grad if scale is None else matrix_OI.grad / scale
        momentum_OI = state["exp_avg"].lerp(gradient_OI, 1 - MOMENTUM)
        update_OI = orthogonalise(gradient_OI.lerp(momentum_OI, MOMENTUM))
        size = _LIKE_ADAMW * math.sqrt(max(matrix_OI.shape))
        moved_OI = matrix_OI * (1 - lr * weight_decay) - lr * size * update_OI
        if skipped is not None:
            is_skipped = skipped.bool()
            moved_OI = torch.where(is_skipped, matrix_OI, moved_OI)
            momentum_OI = torch.where(is_skipped, state["exp_avg"], momentum_OI)
        matrix_OI.copy_(moved_OI)
        state["exp_avg"].copy_(momentum_OI)
        state["step"] += 1 if skipped is None else 1 - skipped


def orthogonalise(matrix_OI: Tensor) -> Tensor:
    """Returns about U V' of a matrix U S V': its singular values become 0.7 to 1.2.

    Args:
        matrix_OI: any float dtype; computed in bf16 on CUDA, in the matrix's dtype elsewhere.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrix_OI.shape[0] > matrix_OI.shape[1]
    x = matrix_OI.T if is_tall else matrix_OI
    x = x.to(torch.bfloat16) if x.is_cuda else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix_OI.dtype)
