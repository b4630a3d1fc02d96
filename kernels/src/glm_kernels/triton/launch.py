"""Whether Triton can be used here, and the sizes that launches are cut into."""

from __future__ import annotations

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton's interpreter runs the kernels on the CPU, slowly: for tests. Triton reads the variable
when it is imported, so it must be set before the process starts."""

OLDEST = (8, 0)
"""Compute capability of the oldest NVIDIA GPU that the kernels are made for."""

PROGRAMS_ELSEWHERE = 3
"""Programs of a reduction on a device without multiprocessors: enough to test what they add up."""


@cache
def unavailable() -> str | None:
    """Return why the kernels cannot run in this process, or None when they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    if INTERPRETED:
        return None
    if not torch.cuda.is_available():
        return "there is no GPU (TRITON_INTERPRET=1 in the environment runs them on the CPU)"
    capability = torch.cuda.get_device_capability()
    if torch.version.hip is None and capability < OLDEST:
        return f"the GPU is of compute capability {capability}; the kernels need {OLDEST} or later"
    return None


def device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Make the tensor's GPU the current one: Triton launches there."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@cache
def num_programs(device: torch.device) -> int:
    """Return how many programs a reduction over rows is spread over: one per multiprocessor."""
    if device.type != "cuda":
        return PROGRAMS_ELSEWHERE
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def power_of_two(size: int) -> int:
    """Return the smallest power of two that is at least `size`: the length of a Triton block."""
    return 1 << max(0, size - 1).bit_length()


def warps_for(elements: int) -> int:
    """Return the warps of a program that holds so many elements: 8 for each thread, up to 16."""
    return min(16, max(1, power_of_two(elements) // 256))


def matmul_precision(dtype: torch.dtype) -> str:
    """Return how `tl.dot` multiplies fp32: in TF32 only where torch was told that it may.

    Three products of TF32 parts keep fp32's bits on the matrix units of NVIDIA; others have "ieee".
    """
    if dtype != torch.float32 or torch.get_float32_matmul_precision() != "highest":
        return "tf32"
    return "ieee" if torch.version.hip else "tf32x3"
