"""`glm bench kernels --tune`: measures what the automatic choices choose among, once per device.

Block sizes of the Triton kernels (on GPUs), the attention backends for each class of requests, and
settings whose best value differs from one CPU to another. What comes out is a small file that
everything finds by itself afterwards; see `glm_kernels.measured`.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from glm_core.bench.clock import Watch, stopwatch
from glm_core.bench.race import Finding, Step
from glm_core.bench.shapes import TRAIN_SHAPES
from glm_core.bench.tune_attention import AttentionSizes, attention_steps
from glm_core.bench.tune_cpu import CpuSizes, cpu_steps
from glm_core.bench.tune_triton import KernelSizes, kernel_steps
from glm_core.progress import Progress
from glm_kernels.measured import Table, default_path, device_name, use_table, write_table

logger = logging.getLogger(__name__)

GPU_BUDGET, CPU_BUDGET = 900.0, 240.0
"""Seconds."""


@dataclass(frozen=True)
class Sizes:
    """How large the tensors are that are measured."""

    attention: AttentionSizes
    kernels: KernelSizes | None
    """None where no Triton kernels are measured."""
    cpu: CpuSizes | None
    """None where it is no CPU."""


CUDA = Sizes(
    AttentionSizes(batch=4, num_heads=16, head_dim=128, lengths=(128, 512, 2048, 8192)),
    # more bytes than a cache holds, also in 4 bits
    KernelSizes(batch=4, columns=2048, num_heads=16, rows=512, features=(16384, 8192)),
    cpu=None,
)
CPU = Sizes(
    AttentionSizes(batch=2, num_heads=8, head_dim=64, lengths=(128, 512, 2048)),
    kernels=None,
    cpu=CpuSizes(
        training=replace(TRAIN_SHAPES["10m"], batch_size=2),
        decoding=replace(TRAIN_SHAPES["50m"], hidden_size=1024, num_heads=16, num_layers=2),
        columns=256,
        rows=(4, 8, 12, 16, 24, 32, 48, 64, 96, 128),
    ),
)


def tune(
    device: torch.device,
    table: Path | None = None,
    budget_s: float | None = None,
    *,
    sizes: Sizes | None = None,
    watch: Watch | None = None,
) -> Path:
    """Measures the choices of a device and writes them down.

    Args:
        device: a GPU, or the CPU with PyTorch's present number of threads.
        table: the file to write; by default the one that is found by itself.
        budget_s: seconds after which nothing more is begun (240 on a CPU, 900 on a GPU): what is
            not reached keeps its built-in choice.
        sizes: of the tensors; those of the device when None.
        watch: takes the time.

    Returns:
        The file.

    Raises:
        ValueError: a budget that is not above 0.
        OSError: the file cannot be written.
    """
    on_gpu = device.type == "cuda"
    budget_s = budget_s if budget_s is not None else GPU_BUDGET if on_gpu else CPU_BUDGET
    if not budget_s > 0:
        raise ValueError(f"the budget is {budget_s} seconds: it must be above 0")
    path = table or default_path(device)
    path.parent.mkdir(parents=True, exist_ok=True)  # fails now rather than at the end
    steps = _steps(device, sizes or (CUDA if on_gpu else CPU))
    result = Table()
    logger.info("measuring %d choices on %s", len(steps), device_name(device))
    with use_table(result):  # nothing that was measured before has a say
        findings = _measure(steps, result, watch or stopwatch(device), budget_s)
    write_table(result, device, path)
    better = sum(finding.chosen != finding.built_in for finding in findings)
    logger.info("%d of %d choices differ from the built-in ones: %s", better, len(findings), path)
    return path


def _steps(device: torch.device, sizes: Sizes) -> list[Step]:
    kernels = [] if sizes.kernels is None else kernel_steps(device, sizes.kernels)
    settings = [] if sizes.cpu is None else cpu_steps(sizes.cpu)
    return kernels + settings + attention_steps(device, sizes.attention)


def _measure(steps: list[Step], table: Table, watch: Watch, budget_s: float) -> list[Finding]:
    progress, start = Progress("measuring", len(steps), "choices"), time.monotonic()
    findings = []
    for number, step in enumerate(steps):
        if time.monotonic() - start > budget_s:
            left = len(steps) - number
            logger.warning(
                "%d of %d choices keep their built-in value: the budget of %.0f s is used up",
                *(left, len(steps), budget_s),
            )
            break
        finding = step.measure(table, watch)
        if finding is not None:
            findings.append(finding)
            logger.info("%s", finding)
        progress.add(1)
    return findings
