"""`glm bench checkpoint`: time and memory of converting and loading a released shape.

A checkpoint of random weights is written in the released layout, converted to our own and back, and
loaded; each in a process of its own, so that each has its own peak memory.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glm_core.checkpoint.files import write_json
from glm_core.checkpoint.formats import format_named
from glm_core.checkpoint.formats.glm_lab import parameter_shapes
from glm_core.checkpoint.keymap import entries, expand, shape_on_rank, slots
from glm_core.checkpoint.pretrained import EMBEDDED
from glm_core.checkpoint.released import open_checkpoint
from glm_core.checkpoint.writer import Kind, ShardedWriter
from glm_core.model.config import TransformerConfig
from glm_core.model.presets import preset
from glm_core.progress import Progress
from glm_core.tokenizer.loading import load_tokenizer
from glm_core.train.cpu_memory import peak_resident_bytes

logger = logging.getLogger(__name__)

RELEASED_LAYOUT = {"chatglm-6b": "chatglm", "chatglm2-6b": "chatglm2", "glm-4-9b": "chatglm2"}
SHARD_BYTES = 2 * 10**9
"""Of a file: the released 6B models come in seven of about this size."""


@dataclass(frozen=True)
class CheckpointRow:
    """One step of the way."""

    shape: str
    step: str
    gigabytes: float
    """Of the weights, in units of 10^9 bytes."""
    seconds: float
    start_mib: float
    """Resident memory once everything is imported, before the first file is opened."""
    peak_mib: float
    growth_in_largest_tensors: float
    """(peak - start) / size of the largest tensor."""
    torch: str


def write_random(config: TransformerConfig, layout: str, folder: Path) -> None:
    """Writes random bf16 weights in the format `layout`."""
    format = format_named(layout)
    table = expand(format.table(config), config.num_layers, format.prefix)
    rows = entries(table)
    shapes = parameter_shapes(config)
    kinds: dict[str, Kind] = {}
    for ours, size in shapes.items():
        stored = shape_on_rank(rows[ours], config, size, 1)
        kinds |= {name: (torch.bfloat16, stored_size) for name, stored_size in stored.items()}
    folder.mkdir(parents=True)
    writer = ShardedWriter(folder, [kinds], False, SHARD_BYTES)
    generator = torch.Generator().manual_seed(0)
    parameters = sum(torch.Size(size).numel() for size in shapes.values())
    progress = Progress("writing random weights", 2 * parameters / 1e9, "GB")
    for ours, size in shapes.items():
        tensor = torch.empty(size, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
        for rank, name, views in slots(rows[ours], config, tensor, 1):
            writer.write(rank, name, views)
        progress.add(tensor.nbytes / 1e9)
    writer.close()
    if writer.weight_map:
        index = {"weight_map": writer.weight_map}
        write_json(folder / "model.safetensors.index.json", index)
    write_json(folder / "config.json", format.write_config(config))


def measure(shape: str, folder: Path) -> list[CheckpointRow]:
    """Runs every step; `folder` must have room for three copies of the weights.

    Raises:
        RuntimeError: what came back is not bitwise what was written.
    """
    released, ours, back = folder / "released", folder / "ours", folder / "back"
    layout = RELEASED_LAYOUT[shape]
    # In a child as well: a process hands its peak memory down to those that it starts.
    _in_child({"write": shape, "source": str(released)})
    jobs: list[dict[str, Any]] = [
        {"step": f"{layout} -> glm-lab", "source": released, "target": ours, "to": "glm-lab"},
        {"step": f"glm-lab -> {layout}", "source": ours, "target": back, "to": layout},
        {"step": "load in bf16", "source": ours},
        {"step": "load and quantize to int4", "source": ours, "quantize": "int4"},
    ]
    rows = []
    for job in jobs:
        logger.info("%s: %s", shape, job["step"])
        result = _in_child({key: str(value) for key, value in job.items()})
        rows.append(_row(shape, job["step"], result))
    if not same_weights(released, back):
        raise RuntimeError(f"{back} does not hold the weights of {released}")
    return rows


def same_weights(one: Path, other: Path) -> bool:
    """Whether two folders hold bitwise the same parameters."""
    a, b = open_checkpoint(one), open_checkpoint(other)
    return a.config == b.config and all(
        torch.equal(a.read(name).view(torch.uint8), b.read(name).view(torch.uint8))
        for name in a.names()
    )


def _row(shape: str, step: str, result: dict[str, float]) -> CheckpointRow:
    sizes = [2 * torch.Size(size).numel() for size in parameter_shapes(preset(shape)).values()]
    growth = result["peak_bytes"] - result["start_bytes"]
    return CheckpointRow(
        shape=shape,
        step=step,
        gigabytes=sum(sizes) / 1e9,
        seconds=result["seconds"],
        start_mib=result["start_bytes"] / 2**20,
        peak_mib=result["peak_bytes"] / 2**20,
        growth_in_largest_tensors=growth / max(sizes),
        torch=torch.__version__,
    )


def _in_child(job: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "glm_core.bench.checkpoint", json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _run(job: dict[str, str]) -> dict[str, float]:
    from glm_core.checkpoint.convert import convert
    from glm_core.checkpoint.loading import load_model

    start, begin = peak_resident_bytes(), time.perf_counter()
    if "write" in job:
        source = Path(job["source"])
        write_random(preset(job["write"]), RELEASED_LAYOUT[job["write"]], source)
        load_tokenizer(EMBEDDED["nano-text"]).save(source)  # any: a model comes with one
    elif "target" in job:
        convert(job["source"], job["target"], job["to"])
    else:
        load_model(job["source"], dtype=torch.bfloat16, quantize=job.get("quantize", "keep"))
    return {
        "seconds": time.perf_counter() - begin,
        "start_bytes": start,
        "peak_bytes": peak_resident_bytes(),
    }


if __name__ == "__main__":
    print(json.dumps(_run(json.loads(sys.argv[1]))), flush=True)
