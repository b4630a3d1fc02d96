"""Which arithmetic a step uses, and the loss scale that fp16 needs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from glm_core.train.trainer_config import Precision
from glm_kernels.measured import ranking

QUESTION, CASE = "precision", "training"
"""Under which a table of measured choices ranks precisions."""


def resolve_device(name: str, setting: str = "trainer.device") -> torch.device:
    """The device that `name` stands for.

    Args:
        name: auto (cuda if there is one, else cpu), or what `torch.device` understands.
        setting: what the user calls it, for the error.

    Raises:
        ValueError: if it is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{setting} is {name!r}; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{setting} is {name!r}, but torch sees no CUDA device; use auto or cpu")
    return device


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision that `auto` stands for on `device`: what was measured, else built in."""
    if precision is not Precision.auto:
        return precision
    for answer in ranking(QUESTION, CASE, device):
        if answer in (Precision.fp32, Precision.bf16):
            return Precision(answer)
    return built_in_precision(device)


def built_in_precision(device: torch.device) -> Precision:
    """The precision of a device on which nothing was measured.

    Emulated bf16 does not pay: a CPU needs AMX tiles or AVX-512's products of bf16, else fp32 is
    faster; a GPU from before Ampere takes fp16.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision.bf16 if native else Precision.fp16
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return Precision.bf16 if native else Precision.fp32


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The autocast region of one forward."""
    if precision is Precision.fp32:
        return nullcontext()
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float16
    return torch.autocast(device.type, dtype=dtype)


class LossScaler:
    """Dynamic loss scale for fp16, kept in tensors so that no step waits for the device.

    The scale halves when `hysteresis` steps had overflown, and doubles after `growth_window` good
    steps in a row, which also restores the hysteresis (GLM-130B: window 2000, hysteresis 2,
    arXiv 2210.02414, table 11). GLM-130B starts at 2^16 on the *mean* loss; ours is a sum over
    thousands of targets, hence the lower start. Disabled, the scale is 1 for ever.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        enabled: bool,
        initial_scale: float = 2.0**8,
        growth_window: int = 2000,
        hysteresis: int = 2,
    ) -> None:
        self.enabled = enabled
        self.growth_window = growth_window
        self.hysteresis = hysteresis
        self.scale = torch.tensor(initial_scale if enabled else 1.0, device=device)
        self._good_steps = torch.zeros((), device=device)
        self._tolerance = torch.tensor(float(hysteresis), device=device)

    def update(self, skipped: Tensor) -> None:
        """Learn from one step; `skipped` is 1.0 after an overflow, else 0.0."""
        if not self.enabled:
            return
        overflow = skipped > 0
        self._tolerance = torch.where(overflow, self._tolerance - 1, self._tolerance)
        shrink = overflow & (self._tolerance <= 0)
        self._good_steps = torch.where(overflow, 0.0, self._good_steps + 1)
        grow = self._good_steps >= self.growth_window
        factor = torch.where(shrink, 0.5, torch.where(grow, 2.0, 1.0))
        self.scale = (self.scale * factor).clamp(2.0**-24, 2.0**24)
        self._good_steps = torch.where(grow, 0.0, self._good_steps)
        # Once exhausted the tolerance stays at one: every further overflow halves the scale, until
        # a whole window of good steps has passed.
        restored = torch.where(grow, float(self.hysteresis), self._tolerance)
        self._tolerance = restored.clamp(min=1.0)

    def state_dict(self) -> dict[str, Tensor]:
        """The three tensors; empty when disabled."""
        if not self.enabled:
            return {}
        return {
            "scale": self.scale,
            "good_steps": self._good_steps,
            "tolerance": self._tolerance,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave; a run that was not fp16 before starts afresh."""
        if not self.enabled or not state:
            return
        self.scale = state["scale"].to(self.scale.device)
        self._good_steps = state["good_steps"].to(self.scale.device)
        self._tolerance = state["tolerance"].to(self.scale.device)
