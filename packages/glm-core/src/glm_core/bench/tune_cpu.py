"""Settings whose best value differs from one CPU to another.

Which arithmetic `trainer.precision=auto` stands for, and up to how many texts the compiled decode
step is faster than the model's own forward. How many threads a small model decodes on is measured
while it decodes (`ThreadChoice` in glm_core.infer.fast_decode), as it depends on who else is busy.

Letters: B rows, T columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from glm_core.attention import Causal, Full
from glm_core.bench.clock import Call, Watch
from glm_core.bench.race import Finding, Step, order, race
from glm_core.bench.shapes import TrainShape
from glm_core.infer.fast_decode import (
    DECODE_STEP,
    MOST_ROWS,
    FastDecoder,
    fast_decoder,
)
from glm_core.infer.kv_cache import KVCache
from glm_core.model import Transformer
from glm_core.quantize import QuantizeConfig, quantize_
from glm_core.train.precision import CASE, QUESTION, autocast, built_in_precision
from glm_core.train.trainer_config import Precision
from glm_kernels.measured import Table

CPU = torch.device("cpu")
PRECISION_MARGIN = 0.15
"""bf16 rounds, so it has to be clearly faster."""
BITS = (32, 4, 8)


@dataclass(frozen=True)
class CpuSizes:
    """How large the models are, and how many rows are tried."""

    training: TrainShape
    decoding: TrainShape
    columns: int
    """Already in the cache of each row."""
    rows: tuple[int, ...]
    """Ascending."""


def cpu_steps(sizes: CpuSizes) -> list[Step]:
    """Returns what is to be measured."""
    steps = [Step(f"{QUESTION} {CASE}", partial(_measure_precision, sizes.training))]
    return steps + [
        Step(f"{DECODE_STEP} b{bits}", partial(_measure_rows, bits, sizes)) for bits in BITS
    ]


def _measure_precision(shape: TrainShape, table: Table, watch: Watch) -> Finding | None:
    model = _model(shape).train()
    ids_BT = torch.randint(shape.vocab_size, (shape.batch_size, shape.seq_length))
    ways = {
        precision.value: _training_step(model, ids_BT, precision)
        for precision in (Precision.fp32, Precision.bf16)
    }
    seconds = race(ways, watch)
    built_in = built_in_precision(CPU).value
    if built_in not in seconds:
        return None
    names = order(seconds, Precision.fp32.value, PRECISION_MARGIN)
    table.rankings.setdefault(QUESTION, {})[CASE] = names
    gain = seconds[built_in] / seconds[names[0]]
    return Finding(f"{QUESTION} {CASE}", names[0], built_in, gain)


def _training_step(model: Transformer, ids_BT: torch.Tensor, precision: Precision) -> Call:
    def step() -> None:
        with autocast(precision, CPU):
            total, _ = model.loss(model(ids_BT, mask=Causal()), ids_BT)
        total.backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=False)

    return step


def _measure_rows(bits: int, sizes: CpuSizes, table: Table, watch: Watch) -> Finding | None:
    """Finds the most rows at which, and below which, the compiled step is not the slower way."""
    model = _model(sizes.decoding).eval()
    if bits < 32:
        quantize_(model, QuantizeConfig(bits=bits, group=32 if bits == 4 else 0))
    decoder = fast_decoder(model)
    if decoder is None:  # nothing is compiled here
        return None
    most, gains = 0, [1.0]
    for rows in sizes.rows:
        seconds = race(_both_ways(model, decoder, rows, sizes.columns), watch)
        if seconds.keys() != {"step", "model"}:
            break
        gain = seconds["model"] / seconds["step"]
        if gain < 1.0:
            gains += [1.0 / gain] if rows <= MOST_ROWS else []
            break
        most = rows
        gains += [gain] if rows > MOST_ROWS else []
    table.configs.setdefault(DECODE_STEP, {})[f"b{bits}"] = {"most_rows": most}
    return Finding(f"{DECODE_STEP} b{bits}: most rows", str(most), str(MOST_ROWS), max(gains))


def _both_ways(
    model: Transformer, decoder: FastDecoder, rows: int, columns: int
) -> dict[str, Call]:
    """Returns a column of so many texts by the compiled step, and by the model's forward."""
    cache = KVCache.for_model(model.config, rows, columns + 1, model.dtype)
    for tensor in (*cache.keys, *cache.values):
        tensor.normal_()
    tokens, places, pads = [1] * rows, [(columns, 0)] * rows, [0] * rows
    ids_B1 = torch.tensor(tokens)[:, None]
    places_B21 = torch.tensor(places)[:, :, None]

    def by_step() -> None:
        cache.length = columns
        decoder.step(tokens, places, pads, cache)

    def by_model() -> None:
        cache.length = columns
        with torch.inference_mode():
            model.logits(model(ids_B1, places_B21, Full(), cache)[:, -1])

    return {"step": by_step, "model": by_model}


def _model(shape: TrainShape) -> Transformer:
    model = Transformer(shape.config())
    model.init_weights(0)
    return model
