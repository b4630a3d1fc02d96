"""Which block sizes make a Triton kernel the fastest, for each class of shapes.

All built-in choices are tried, then the neighbours of the best one (a setting one step up or down)
until none is faster. What gives another result than PyTorch's own ops takes no part.

Letters: B batch, T columns, N heads, H head size, M rows of activations, O outputs, I inputs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from glm_core.bench.clock import Call, Watch, in_one_graph
from glm_core.bench.race import Finding, Step, order, race
from glm_kernels import PackedWeight, VisibleKeys, dispatch, pack_weight
from glm_kernels.measured import Table
from glm_kernels.triton import tuning
from glm_kernels.triton.tuning import Config

OPS = (
    "weight_only_vector",
    "attention_forward",
    "attention_grad_q",
    "attention_grad_kv",
    "weight_only_matrix",
    "weight_only_dequantize",
)
SHORT = ("weight_only_vector", "weight_only_matrix", "attention_forward")
GRAPH_CALLS = 20
MOST_SEARCHES = 6
RACE_SECONDS = 0.2
MARGIN = 0.02
"""By so much a neighbour must be faster."""
GROUP = 128
TOLERANCE = 0.03
"""Of the largest value: bf16 rounds by 0.4 %, and sums of rounded values by a few times that."""

Result = tuple[Tensor, ...]
Work = Callable[[], Result]


@dataclass(frozen=True)
class KernelSizes:
    """How large the tensors are."""

    batch: int
    columns: int
    num_heads: int
    rows: int
    """Of activations where they are many."""
    features: tuple[int, int]
    """Outputs and inputs of a quantized layer."""


def kernel_steps(device: torch.device, sizes: KernelSizes) -> list[Step]:
    """Returns what is to be measured: the most common shapes of each kernel first."""
    places = [(place, op) for op in OPS for place in range(len(tuning.shapes(op)))]
    shapes = [(op, tuning.shapes(op)[place]) for place, op in sorted(places, key=lambda x: x[0])]
    return [
        Step(f"{op} {shape}", partial(_measure, op, shape, device, sizes)) for op, shape in shapes
    ]


def _measure(
    op: str, shape: str, device: torch.device, sizes: KernelSizes, table: Table, watch: Watch
) -> Finding | None:
    work = partial(_WORK[op], op, shape, device, sizes)
    expected, run = work("torch")(), work("triton")
    built_in = tuning.built_in(op, shape, device)

    def measure(configs: list[Config]) -> dict[str, float]:
        ways = {_name(config): _way(op, config, run, device) for config in configs}
        return race(ways, watch, RACE_SECONDS, partial(_agree, expected))

    best, gain = search(built_in, tuning.candidates(op), measure)
    if best is None:
        return None
    table.configs.setdefault(op, {})[shape] = best
    return Finding(f"{op} {shape}", _name(best), _name(built_in), gain)


def search(
    built_in: Config, candidates: list[Config], measure: Callable[[list[Config]], dict[str, float]]
) -> tuple[Config | None, float]:
    """Goes from the best candidate to better neighbours.

    Args:
        built_in: what it has to beat.
        candidates: tried first.
        measure: returns seconds by the config's name, without those that cannot run.

    Returns:
        The best config, None if none can run; the time of `built_in` over its time.
    """
    best, gain, tried = built_in, 1.0, [built_in]
    pending = candidates
    for number in range(MOST_SEARCHES):
        pending = [config for config in pending if config not in tried]
        tried += pending
        seconds = measure([built_in, best, *pending])
        if not seconds:
            return None, 0.0
        names = order(seconds, _name(best), MARGIN)
        was_best, best = best, json.loads(names[0])
        gain = seconds.get(_name(built_in), math.inf) / seconds[names[0]]
        pending = [config for config in tuning.neighbours(best) if config not in tried]
        if not pending or (number and best == was_best):
            break
    return best, gain


def _name(config: Config) -> str:
    return json.dumps(config)


def _way(op: str, config: Config, run: Work, device: torch.device) -> Call:
    """Returns a call with a config; on a GPU, after the first, the replay of several as one graph,
    because launching from Python takes longer than the short kernels do."""
    replay: list[Call] = []

    def way() -> object:
        if replay:
            return replay[0]()
        with tuning.use_config(op, config):
            result = run()
            if device.type == "cuda" and op in SHORT:
                replay.append(in_one_graph([run] * GRAPH_CALLS))
        return result

    return way


def _agree(expected: Result, actual: Result) -> bool:
    """Whether two results are the same up to rounding; NaN is never the same."""
    return all(
        bool((a - e).abs().max() <= TOLERANCE * e.abs().max())
        for a, e in zip(actual, expected, strict=True)
    )


def _attention(op: str, shape: str, device: torch.device, sizes: KernelSizes, backend: str) -> Work:
    """Returns a call of attention, or of its backward alone."""
    few, wide = shape.startswith("few"), shape.endswith("w" if shape[0] == "h" else "ww")
    size = 128 if few else int(shape.strip("hw"))
    generator = torch.Generator(device).manual_seed(0)
    q_BTNH, k_BTNH, v_BTNH = (
        torch.randn(
            *(sizes.batch, columns, sizes.num_heads, size),
            generator=generator,
            device=device,
            dtype=torch.float32 if wide else _half(device),
            requires_grad=op != "attention_forward",
        )
        for columns in (1 if few else sizes.columns, sizes.columns, sizes.columns)
    )
    visible = _prefix_lm(q_BTNH.shape[1], sizes.columns, sizes.batch, device)
    function = dispatch("attention", device.type, backend)
    bounds = visible.start_BT, visible.stop_BT, visible.sink
    forward = partial(function, q_BTNH, k_BTNH, v_BTNH, *bounds, size**-0.5)
    if op == "attention_forward":
        return lambda: (forward(),)
    out = forward()
    leaves = q_BTNH, k_BTNH, v_BTNH
    return lambda: torch.autograd.grad(out, leaves, out.detach(), retain_graph=True)


def _prefix_lm(queries: int, keys: int, batch: int, device: torch.device) -> VisibleKeys:
    """A third of the columns is prefix, in the last row two thirds."""
    q_T = torch.arange(keys - queries, keys)
    prefix_B1 = torch.full((batch, 1), keys // 3)
    prefix_B1[-1] *= 2
    stop_BT = torch.maximum(q_T + 1, prefix_B1).int().to(device)
    return VisibleKeys(torch.zeros_like(stop_BT), stop_BT)


def _product(op: str, shape: str, device: torch.device, sizes: KernelSizes, backend: str) -> Work:
    """Returns a call of a quantized layer, or of its backward alone."""
    outputs, inputs = sizes.features
    rows = {"m16": 16, "m64": 64, "many": sizes.rows, "default": 64}.get(shape, 1)
    bits = 8 if shape == "b8" else 4
    backward = op == "weight_only_dequantize"
    dtype = torch.float32 if shape == "default" else _half(device)
    generator = torch.Generator(device).manual_seed(0)
    x_MI = torch.randn(rows, inputs, generator=generator, device=device, dtype=dtype)
    weight = _weight(outputs, inputs, bits, device, generator)
    function = dispatch("linear_weight_only", device.type, backend)
    if not backward:
        return lambda: (function(x_MI, weight, None, 15),)
    out_MO = function(x_MI.requires_grad_(), weight, None, 15)
    return lambda: torch.autograd.grad(out_MO, x_MI, out_MO.detach(), retain_graph=True)


def _weight(
    outputs: int, inputs: int, bits: int, device: torch.device, generator: torch.Generator
) -> PackedWeight:
    shape = outputs, inputs * bits // 8
    levels = torch.randint(-128, 128, shape, generator=generator, device=device, dtype=torch.int8)
    scales = torch.rand(outputs, inputs // GROUP, generator=generator, device=device) / 2**bits
    return pack_weight(levels, scales.half(), bits=bits, group=GROUP)


def _half(device: torch.device) -> torch.dtype:
    """bf16; where Triton is interpreted, which gets that wrong, fp16."""
    return torch.bfloat16 if device.type == "cuda" else torch.float16


_WORK = {
    "attention_forward": _attention,
    "attention_grad_q": _attention,
    "attention_grad_kv": _attention,
    "weight_only_vector": _product,
    "weight_only_matrix": _product,
    "weight_only_dequantize": _product,
}
