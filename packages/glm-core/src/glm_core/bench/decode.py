"""`glm bench decode`: tokens per second of text, against what people run today.

Every contender computes a model of the same shape with random weights, in a process of its own. All
of them write one share of tokens (or read one prompt) in each round, one after the other, and the
bandwidth of reading memory is measured in the same round, so that a busy machine is busy for all.
Processes that do not fit into memory together are started for their turn and ended after it.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from glm_core.bench.contender import Contender
from glm_core.bench.ggml_peers import CHATGLM_CPP, LLAMA_CPP, environment_of, ggml_contender
from glm_core.bench.machine import available_bytes, graphics_processor, has_amx, processor
from glm_core.bench.shapes import TRAIN_SHAPES
from glm_core.model.config import TransformerConfig
from glm_core.model.presets import preset
from glm_core.model.size import count_parameters

logger = logging.getLogger(__name__)

OURS, READ = "ours", "read"
EIGHT_BIT = "8-bit"
"""The variant of ours that rounds the activations of a prompt as llama.cpp does."""
COMPILED_INT4, COMPILED_BF16 = "compiled-int4", "compiled-bf16"
PEERS = (LLAMA_CPP, CHATGLM_CPP, "torch-int4", "transformers")
GPU_PEERS = (COMPILED_INT4, COMPILED_BF16)
VARIANTS = {
    (LLAMA_CPP, 8): ("Q8_0",),
    (LLAMA_CPP, 4): ("Q4_0", "Q4_K"),
    (CHATGLM_CPP, 8): ("Q8_0",),
    (CHATGLM_CPP, 4): ("Q4_0",),
}
"""What a peer is tried with where our weights have so many bits; the fastest counts."""
WITHOUT_AMX = {"GLM_KERNELS_ISA": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
PROMPT_LAYERS = 8
_SHARE_OF_MEMORY = 0.85


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    shape: str
    """See `shape_config`."""
    layers: int = 0
    """0 for as many as the shape has; for prompts, whose time is all in layers of one kind,
    `PROMPT_LAYERS` at most."""
    batch: int = 1
    """Texts computed together."""
    prompt: int = 0
    """Tokens of a prompt that is read in a round; 0: texts are written."""
    rounds: int = 5
    tokens: int = 16
    """Written for each text in a round."""
    threads: int = 2
    bits: int = 4
    """Of our weights: 4 (groups of 32), 8 (rows), or 32 (fp32, not quantized)."""
    device: str = "cpu"
    """Or cuda."""
    with_amx: bool = True
    """False: contenders that can use AMX must not."""


@dataclass(frozen=True)
class DecodeRow:
    """One contender at one shape."""

    shape: str
    layers: int
    batch: int
    prompt: int
    """Tokens of the prompt that is read; 0: the rates are those of writing."""
    contender: str
    weights: str
    activations: str
    tokens_per_second: float
    """Median over the rounds, of all texts together; 0 where it could not run."""
    low: float
    high: float
    ratio: float
    """Median over the rounds of ours / this; above 1 we are faster."""
    best_ratio: float
    """Our best round / this one's: what a machine shows in the moments without other work."""
    ratio_8_bit: float
    """As `ratio`, for ours with 8-bit activations; 0 where that was not measured."""
    read_gb_per_second: float
    """Median bandwidth of reading memory in the same rounds."""
    weight_gigabytes: float
    """Read for each token."""
    rounds: int
    tokens: int
    """Written in a round."""
    threads: int
    load: float
    """Mean number of running processes of the whole machine, ours included."""
    torch: str
    cpu: str
    reason: str
    """Why it could not run."""


def shape_config(shape: str, layers: int = 0) -> TransformerConfig:
    """The config of a published model or of a shape of `glm bench train`.

    Args:
        layers: 0 for as many as it has.

    Raises:
        ValueError: there is no such shape, or it has fewer layers.
    """
    config = TRAIN_SHAPES[shape].config() if shape in TRAIN_SHAPES else preset(shape)
    if layers > config.num_layers:
        raise ValueError(f"--layers is {layers}: {shape} has {config.num_layers}")
    return replace(config, num_layers=layers or config.num_layers)


def measure(plan: Plan, against: Sequence[str], set_up: bool = False) -> list[DecodeRow]:
    """Lets all contenders compute, by turns, and compares them round by round.

    Args:
        plan: what they compute.
        against: peers, of `PEERS`.
        set_up: install the peers that are not there yet.

    Raises:
        ValueError: there is no such shape or peer, or the shape cannot hold such a prompt.
    """
    peers = PEERS if plan.device == "cpu" else GPU_PEERS
    unknown = sorted(set(against) - set(peers))
    if unknown:
        raise ValueError(
            f"--against names {unknown[0]!r}: on {plan.device}, choose from {', '.join(peers)}"
        )
    if plan.prompt and plan.device != "cpu":
        raise ValueError(f"--prompt is {plan.prompt}: reading prompts is measured on the CPU alone")
    config = shape_config(plan.shape, plan.layers)
    if plan.prompt and not plan.layers:
        config = replace(config, num_layers=min(config.num_layers, PROMPT_LAYERS))
    if plan.prompt > config.max_position_embeddings:
        most = config.max_position_embeddings
        raise ValueError(f"--prompt is {plan.prompt}: {plan.shape} has {most} positions")
    amx = plan.with_amx and has_amx()
    job = {
        "shape": plan.shape,
        "layers": config.num_layers,
        "batch": plan.batch,
        "prompt": plan.prompt,
        "tokens": plan.tokens,
        "threads": plan.threads,
        "device": plan.device,
        "bits": plan.bits,
        "amx": amx,
    }
    contenders = [_contender({**job, "contender": READ}), _contender({**job, "contender": OURS})]
    if plan.prompt and plan.bits != 32:
        contenders.append(_contender({**job, "contender": OURS, "variant": EIGHT_BIT}))
    for peer in against:
        failed = _set_up(peer, amx) if set_up else ""
        for variant in VARIANTS.get((peer, 8 if plan.bits == 8 else 4), ("",)):
            contender = _contender({**job, "contender": peer, "variant": variant})
            contender.reason = failed or contender.reason
            contenders.append(contender)
    load = _run_rounds(contenders, plan.rounds, _fit_together(config, contenders, plan))
    return [_row(contender, contenders, load) for contender in contenders[1:]]


def ratios(rows: Sequence[DecodeRow], eight_bit: bool = False) -> dict[str, float]:
    """Ours / peer by the peer's name: against the fastest of its variants.

    Args:
        eight_bit: whether ours rounds activations to 8 bits, not 15.
    """
    found: dict[str, float] = {}
    for row in rows:
        name = row.contender.partition(" ")[0]
        if name != OURS and not row.reason:
            ratio = row.ratio_8_bit if eight_bit else row.ratio
            found[name] = min(found.get(name, ratio), ratio)
    return found


def _set_up(peer: str, with_amx: bool) -> str:
    environment = environment_of(peer, with_amx)
    return "" if environment is None else environment.set_up()


def _contender(job: dict[str, Any]) -> Contender:
    if environment_of(job["contender"], job["amx"]) is not None:
        return ggml_contender(job, shape_config(job["shape"], job["layers"]))
    return Contender(job, environment={} if job["amx"] or not has_amx() else WITHOUT_AMX)


def _run_rounds(contenders: Sequence[Contender], rounds: int, together: bool) -> float:
    """Runs a round to warm up and `rounds` more; returns the mean load of the machine."""
    loads, started = [], time.monotonic()
    for contender in contenders:
        if contender.reason:
            logger.warning("without %s: %s", contender.name, contender.reason)
    try:
        for number in range(rounds + 1):
            # the direction alternates, so that nobody always runs on a warmer machine
            for contender in contenders if number % 2 == 0 else contenders[::-1]:
                contender.round()
                if not together:
                    contender.close()
                loads.append(os.getloadavg()[0])
            done = number + 1
            left = (time.monotonic() - started) / done * (rounds + 1 - done)
            logger.info("round %d/%d, eta %.0fs", done, rounds + 1, left)
    finally:
        for contender in contenders:
            contender.close()
    for contender in contenders:
        contender.rates = contender.rates[1:]
    return statistics.fmean(loads)


def _fit_together(config: TransformerConfig, contenders: Sequence[Contender], plan: Plan) -> bool:
    parameters = count_parameters(config)
    per_weight = {READ: 0.0, OURS: plan.bits / 8 * 1.2, "transformers": 2.0, COMPILED_BF16: 2.0}
    need = sum(
        parameters * per_weight.get(c.job["contender"], 0.7) + 2e9
        for c in contenders
        if not c.reason
    )
    return need < _SHARE_OF_MEMORY * available_bytes(plan.device)


def _row(contender: Contender, contenders: Sequence[Contender], load: float) -> DecodeRow:
    read, ours = contenders[:2]
    eight_bit = [c for c in contenders if c.job.get("variant") == EIGHT_BIT]
    job, rates = contender.job, contender.rates or [0.0]
    return DecodeRow(
        shape=job["shape"],
        layers=job["layers"],
        batch=job["batch"],
        prompt=job["prompt"],
        contender=contender.name,
        weights=contender.about.get("weights", ""),
        activations=contender.about.get("activations", ""),
        tokens_per_second=statistics.median(rates),
        low=min(rates),
        high=max(rates),
        ratio=_ratio(ours, contender),
        best_ratio=max(ours.rates, default=0.0) / (max(rates) or float("inf")),
        ratio_8_bit=_ratio(eight_bit[0], contender) if eight_bit else 0.0,
        read_gb_per_second=statistics.median(read.rates or [0.0]),
        weight_gigabytes=contender.about.get("bytes", 0) / 1e9,
        rounds=len(contender.rates),
        tokens=0 if job["prompt"] else job["tokens"],
        threads=job["threads"],
        load=load,
        torch=torch.__version__,
        cpu=processor(job["amx"]) if job["device"] == "cpu" else graphics_processor(),
        reason=contender.reason,
    )


def _ratio(ours: Contender, other: Contender) -> float:
    """Median over the rounds; 0 where one of them could not run."""
    pairs = zip(ours.rates, other.rates, strict=False)
    return statistics.median([mine / theirs for mine, theirs in pairs] or [0.0])
