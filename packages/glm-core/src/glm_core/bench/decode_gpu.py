"""The contenders of `glm bench decode --device cuda`; decode_workers.py serves them.

Ours: weights in Triton's products, a column recorded as a CUDA graph. The peers are what
torch.compile makes of the same step with static shapes, traced whole and recorded as a CUDA graph
too: with plain bf16 matrices, or with torch's own int4 product.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glm_core.bench.clock import stopwatch
from glm_core.bench.decode import COMPILED_BF16, COMPILED_INT4, OURS, READ, shape_config
from glm_core.bench.decode_workers import (
    GROUP,
    SHORT_PROMPT,
    About,
    Round,
    bytes_read,
    model_of_products,
    quantized_model,
)
from glm_core.bench.random_weights import fill_, random_model
from glm_core.infer.column_decoder import ColumnDecoder
from glm_core.infer.graph_decode import GraphDecoder, Graphs, Step, capture_graph, graph_decoder
from glm_core.infer.kv_cache import KVCache
from glm_core.model import Transformer
from glm_core.quantize.weight import QuantizedWeight
from glm_kernels import use_backend

DEVICE = torch.device("cuda")
COMPILER = "inductor"
READ_BYTES = 4 << 30
_INNER_TILES = 8
"""How torch's int4 product lays its weight out; 8 is what its own documentation recommends."""


def ours(job: Mapping[str, Any]) -> tuple[About, Round]:
    """This repository: group-wise int4, int8 rows, or bf16."""
    model, weights = random_model(shape_config(job["shape"], job["layers"])), "bf16"
    if job["bits"] == 32:
        fill_(model)
    else:
        model, weights = quantized_model(job)
    model.to(DEVICE)
    for module in model.modules():
        if isinstance(module, QuantizedWeight):
            module.pack()  # nothing to do where it was packed on the CPU
    decoder = graph_decoder(model)
    assert decoder is not None, "the static step runs every model of a preset"
    about = {"weights": weights, "activations": "bf16", "bytes": bytes_read(model)}
    return about, writing(model, decoder, job)


def compiled_bf16(job: Mapping[str, Any]) -> tuple[About, Round]:
    """torch.compile, nothing quantized."""
    model = random_model(shape_config(job["shape"], job["layers"]))
    fill_(model)
    model.to(DEVICE)
    about = {"weights": "bf16", "activations": "bf16", "bytes": bytes_read(model)}
    return about, writing(model, compiled(model), job)


def compiled_int4(job: Mapping[str, Any]) -> tuple[About, Round]:
    """torch.compile around torch's own int4 product."""
    model = model_of_products(job, Int4Linear).to(DEVICE)
    weights = f"int4 groups of {GROUP} by torch's product"
    about = {"weights": weights, "activations": "bf16", "bytes": bytes_read(model)}
    return about, writing(model, compiled(model), job)


def read_memory(job: Mapping[str, Any]) -> tuple[About, Round]:
    """GB/s of adding up or copying more memory than caches hold, whichever is faster."""
    numbers = torch.ones(READ_BYTES // 4, device=DEVICE)
    source, target = numbers.chunk(2)
    watch = stopwatch(DEVICE)

    def run() -> float:
        seconds = [watch([call]) for call in (numbers.sum, lambda: target.copy_(source)) * 3]
        return READ_BYTES / min(seconds) / 1e9

    return {"weights": "fp32", "activations": "fp32", "bytes": READ_BYTES}, run


class Int4Linear(nn.Module):
    """A linear layer with torch's own int4 product for GPUs, random levels."""

    levels: Tensor
    scales_and_zeros: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rows, columns = linear.weight.shape
        levels = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8, device=DEVICE)
        packed = torch.ops.aten._convert_weight_to_int4pack(levels, _INNER_TILES)
        scales = torch.full((columns // GROUP, rows, 2), 1e-3, dtype=torch.bfloat16, device=DEVICE)
        self.register_buffer("levels", packed)
        self.register_buffer("scales_and_zeros", scales)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.aten._weight_int4pack_mm(
            x.flatten(0, -2), self.levels, GROUP, self.scales_and_zeros
        )
        out = out.view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias


def compiled(model: Transformer) -> ColumnDecoder:
    """The static step in torch's hands, our kernels left out, as a CUDA graph."""

    def capture(step: Step, model: Transformer) -> Step:
        traced = torch.compile(step, fullgraph=True, dynamic=False, backend=COMPILER)
        with use_backend("torch"):
            return capture_graph(traced, model)

    return GraphDecoder(model, Graphs(model, capture))


def writing(model: Transformer, decoder: ColumnDecoder, job: Mapping[str, Any]) -> Round:
    """Greedy decoding, all texts together; the first column, which may have to be moved or
    compiled, is not timed."""
    batch, last = job["batch"], SHORT_PROMPT + job["tokens"]
    ids_BT = torch.ones((batch, SHORT_PROMPT), dtype=torch.int64, device=DEVICE)

    def run() -> float:
        cache = KVCache.for_model(model.config, batch, last + 1, model.dtype, DEVICE)
        with torch.inference_mode():
            logits_BV = model.logits(model(ids_BT, kv_cache=cache)[:, -1])
        for column in range(SHORT_PROMPT, last + 1):
            chosen = logits_BV.argmax(-1).tolist()
            if column == SHORT_PROMPT + 1:
                began = time.perf_counter()
            logits_BV = decoder.step(chosen, [(column, 0)] * batch, [0] * batch, cache)
        logits_BV.argmax(-1).tolist()
        return float(batch * job["tokens"] / (time.perf_counter() - began))

    return run


RUNNERS = {
    OURS: ours,
    COMPILED_INT4: compiled_int4,
    COMPILED_BF16: compiled_bf16,
    READ: read_memory,
}
