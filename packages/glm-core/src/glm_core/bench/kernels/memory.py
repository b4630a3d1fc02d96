"""Memory: weights of a 6B model in int4, and the peak of cross-entropy at a large vocabulary.

    python -m glm_core.bench.kernels.memory '{"side": "ours", "loss": [4096, 256, 65024], ...}'

runs one side of the cross-entropy in a process of its own and prints its peak in bytes.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from glm_core.bench.kernels.case import BACKWARD, name_of
from glm_core.bench.kernels.contest import first_line
from glm_core.bench.kernels.fused import TORCH, Maker, cross_entropy
from glm_core.bench.kernels.goal import WEIGHTS, Goal
from glm_core.bench.kernels.row import KernelRow, Machine
from glm_core.bench.kernels.sizes import CPU, Sizes
from glm_core.model.presets import preset
from glm_core.model.size import measure
from glm_core.quantize.layout import Layout

WEIGHTS_OP, LOSS_OP = "weights_memory", "cross_entropy_memory"
OPS = (WEIGHTS_OP, LOSS_OP)
MODEL = "chatglm-6b"
LAYOUTS = (Layout(4), Layout(4, 64), Layout(4, 32))
FULL_LOGITS = "formula: all logits"
_OURS = "ours"


def weights(machine: Machine) -> Iterator[KernelRow]:
    """Gigabytes of the model's weights in each layout, beside fp16."""
    config = preset(MODEL)
    size = measure(config)
    half = size.num_bytes(2, None) / 1e9
    for layout in LAYOUTS:
        for embeddings in (False, True):
            value = size.num_bytes(2, layout) / 1e9
            part = str(layout)
            if embeddings:
                kinds = layout.kinds(config.vocab_size, config.hidden_size).values()
                table = sum(dtype.itemsize * math.prod(shape) for dtype, shape in kinds)
                value += (table - 2 * config.vocab_size * config.hidden_size) / 1e9
                part += ", embeddings too"
            yield _row(machine, WEIGHTS_OP, part, MODEL, "float16", "GB", value, WEIGHTS, half)


def losses(
    sizes: Sizes, dtype: torch.dtype, device: torch.device, machine: Machine
) -> Iterator[KernelRow]:
    """Peak memory of a step of cross-entropy above what its inputs take, in MiB.

    Ours is to stay below the size of the logits alone.
    """
    rows, hidden, vocab = sizes.loss_memory
    goal = Goal(rows * vocab * dtype.itemsize / 2**20, "MiB", at_most=True)
    ours = _peak(_OURS, sizes, dtype, device) / 2**20
    shape = f"{rows}x{hidden}x{vocab}"
    for side in (FULL_LOGITS, TORCH):
        row = _row(machine, LOSS_OP, BACKWARD, shape, name_of(dtype), "MiB", ours, goal, None)
        try:
            theirs = _peak(side, sizes, dtype, device) / 2**20
        except (RuntimeError, KeyError) as error:
            yield replace(row, peer=side, verdict="", reason=first_line(error))
            continue
        ratio = theirs / ours
        yield replace(
            row, peer=side, theirs=theirs, theirs_best=theirs, ratio=ratio, best_ratio=ratio
        )


def _row(
    machine: Machine,
    op: str,
    part: str,
    shape: str,
    dtype: str,
    unit: str,
    ours: float,
    goal: Goal,
    theirs: float | None,
) -> KernelRow:
    ratio = None if theirs is None else theirs / ours
    return KernelRow(
        op=op,
        part=part,
        shape=shape,
        dtype=dtype,
        **vars(machine),
        code="",
        peer="float16",
        unit=unit,
        ours=ours,
        ours_best=ours,
        theirs=theirs,
        theirs_best=theirs,
        ratio=ratio,
        ratio_low=ratio,
        ratio_high=ratio,
        best_ratio=ratio,
        goal=str(goal),
        verdict=goal.verdict(ours),
        error=None,
        rounds=1,
        load=0.0,
        reason="",
    )


def _peak(side: str, sizes: Sizes, dtype: torch.dtype, device: torch.device) -> float:
    """Bytes; on a CPU from a process of its own, whose memory nobody else has used before."""
    if device.type == "cuda":
        return _peak_here(side, sizes.loss_memory, dtype, device)
    job: dict[str, Any] = {"side": side, "loss": sizes.loss_memory, "dtype": name_of(dtype)}
    job["threads"] = torch.get_num_threads()
    command = [sys.executable, "-m", "glm_core.bench.kernels.memory", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["the process was ended"])[-1])
    return float(done.stdout.strip().splitlines()[-1])


def _peak_here(
    side: str, loss: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> float:
    case = cross_entropy(Maker(replace(CPU, loss=loss), dtype, device))
    op = {_OURS: case.ours, FULL_LOGITS: case.formula, **case.peers}[side]
    case.inputs[0].grad = None
    grad = torch.ones((), device=device)
    before = _allocated(device, peak=False)
    op(*case.inputs).backward(grad)
    return _allocated(device, peak=True) - before


def _allocated(device: torch.device, peak: bool) -> float:
    if device.type == "cuda":
        if peak:
            return float(torch.cuda.max_memory_allocated(device))
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    status = Path("/proc/self/status")
    if not status.exists():
        raise RuntimeError("peak memory of a process is read from /proc, which Linux has")
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return float(lines["VmHWM" if peak else "VmRSS"].split()[0]) * 1024


def _main(job: dict[str, Any]) -> None:
    torch.set_num_threads(job["threads"])
    rows, hidden, vocab = job["loss"]
    dtype: torch.dtype = getattr(torch, job["dtype"])
    print(_peak_here(job["side"], (rows, hidden, vocab), dtype, torch.device("cpu")))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
