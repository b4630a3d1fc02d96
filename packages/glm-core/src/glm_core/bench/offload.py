"""`glm bench offload`: tokens per second and peak memory by the number of layers that stay.

A checkpoint of random weights, of a released model's layers but fewer of them, writes tokens one by
one with a KV cache; each setting in a process of its own, so that each has its own peak memory.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from glm_core.bench.checkpoint import write_random
from glm_core.model.presets import preset
from glm_core.train.cpu_memory import peak_resident_bytes

logger = logging.getLogger(__name__)

FORMAT = "glm-lab"


@dataclass(frozen=True)
class OffloadRow:
    """One setting."""

    shape: str
    bits: int
    """Per weight of the layers: 16 is bf16."""
    num_layers: int
    resident: int
    source: str
    """Where streamed layers come from: the disk, or the kernel's page cache."""
    threads: int
    gigabytes_per_token: float
    gigabytes_per_second: float
    expected_tokens_per_second: float
    """What `glm chat` says at the start: what reading allows; 0 when nothing is read."""
    tokens_per_second: float
    peak_mib: float
    torch: str


def measure(
    shape: str, num_layers: int, bits: int | None, tokens: int, folder: Path, threads: int
) -> list[OffloadRow]:
    """Runs every setting.

    Args:
        shape: a preset, for the sizes of the layers.
        bits: 8 or 4 for quantized matrices; None for bf16.
        tokens: written in each setting.
        folder: must have room for the weights, twice when they are quantized.
    """
    from glm_core.checkpoint.convert import convert

    weights = folder / "bf16"
    write_random(replace(preset(shape), num_layers=num_layers), FORMAT, weights)
    if bits is not None:
        convert(weights, folder / "quantized", FORMAT, bits=bits)
        weights = folder / "quantized"
    settings = [(num_layers, "page cache")]
    for resident in sorted({0, num_layers // 2}, reverse=True):
        settings += [(resident, "page cache"), (resident, "disk")]
    rows = []
    for resident, source in settings:
        job = {"folder": str(weights), "resident": resident, "bits": bits, "tokens": tokens}
        job |= {"source": source, "threads": threads}
        result = _in_child(job)
        row = OffloadRow(
            shape,
            bits or 16,
            num_layers,
            resident,
            source,
            threads,
            **result,
            torch=torch.__version__,
        )
        logger.info("%s", as_table([row]))
        rows.append(row)
    return rows


def as_table(rows: list[OffloadRow]) -> str:
    """The rows as people read them."""
    lines = []
    for row in rows:
        reading = f"reads {row.gigabytes_per_token:.2f} GB per token from the {row.source}, "
        cost = f"{row.tokens_per_second:.2f} tokens/s"
        if row.gigabytes_per_token:
            cost = f"{reading}{cost} ({row.expected_tokens_per_second:.2f} expected)"
        lines.append(
            f"{row.shape}, {row.bits} bits, {row.resident} of {row.num_layers} layers resident: "
            f"{cost}, peak {row.peak_mib:,.0f} MiB"
        )
    return "\n".join(lines)


def _in_child(job: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "glm_core.bench.offload", json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


@torch.inference_mode()
def _run(job: dict[str, Any]) -> dict[str, float]:
    """Loads the model and writes tokens; what an `OffloadRow` says of it."""
    from glm_core.checkpoint.loading import stored_layouts
    from glm_core.checkpoint.released import open_checkpoint
    from glm_core.checkpoint.weight_reader import WeightReader
    from glm_core.infer.kv_cache import KVCache
    from glm_core.infer.offload import offload_
    from glm_core.quantize import pack_

    torch.set_num_threads(job["threads"])
    folder, tokens = Path(job["folder"]), int(job["tokens"])
    checkpoint = open_checkpoint(folder)
    layouts = stored_layouts(checkpoint)
    reader = WeightReader(checkpoint, torch.bfloat16, layouts, torch.device("cpu"))
    if job["source"] == "disk":
        _forget_pages(folder)
    model = reader.empty_model().eval()
    outer = [name for name in reader.checkpoint.names() if not name.startswith("layers.")]
    state = {name: reader.checkpoint.read(name, torch.bfloat16) for name in outer}
    model.load_state_dict(state, strict=False, assign=True)
    with offload_(model, reader, job["resident"]) as layers:
        pack_(model)  # what stays
        report = layers.report()
        cache = KVCache.for_model(model.config, 1, tokens + 1, dtype=torch.bfloat16)
        ids = torch.zeros((1, 1), dtype=torch.int64)
        model.logits(model(ids, kv_cache=cache))
        begin = time.perf_counter()
        for _ in range(tokens):
            if job["source"] == "disk":
                _forget_pages(folder)
            ids = model.logits(model(ids, kv_cache=cache)).argmax(dim=-1)
        seconds = time.perf_counter() - begin
    return {
        "gigabytes_per_token": report.bytes_per_token / 1e9,
        "gigabytes_per_second": report.bytes_per_second / 1e9,
        "expected_tokens_per_second": report.tokens_per_second if report.bytes_per_token else 0.0,
        "tokens_per_second": tokens / seconds,
        "peak_mib": peak_resident_bytes() / 2**20,
    }


def _forget_pages(folder: Path) -> None:
    """Has the kernel drop what it keeps of the files, so that they come from the disk."""
    for path in folder.glob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    print(json.dumps(_run(json.loads(sys.argv[1]))), flush=True)
