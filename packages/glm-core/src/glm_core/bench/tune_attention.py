"""Which attention backend is the fastest for each class of requests.

Letters: B batch, T query columns, S key columns, N heads, H head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor

from glm_core.attention.backend import AttentionBackend, MaskRequest, Scaling
from glm_core.attention.dispatch import (
    BACKENDS,
    LENGTHS,
    QUESTION,
    built_in_order,
    case_name,
    up_to_the_last,
)
from glm_core.attention.spec import Causal, Full, LeftPadded, MaskSpec, Packed, PrefixLM
from glm_core.bench.clock import Call, Watch
from glm_core.bench.race import HOPELESS, Finding, Step, order, race
from glm_kernels.measured import Table

USES = ("training", "prompt", "decode")
KINDS = ("causal", "full", "prefix", "packed")
NUM_LAYERS = 12
"""Layers that share one mask: making it counts for so much less."""
NUM_SAMPLES = 4
"""In a packed row."""


@dataclass(frozen=True)
class AttentionSizes:
    """How large the tensors are."""

    batch: int
    num_heads: int
    head_dim: int
    lengths: tuple[int, ...]
    """Numbers of keys, ascending; entries of `dispatch.LENGTHS`, so that they are found."""


@dataclass(frozen=True)
class Case:
    """A class of requests."""

    use: str
    kind: str
    half: bool

    def request(self, device: torch.device, batch: int, length: int) -> MaskRequest:
        """Returns a request of the class."""
        q_len = 1 if self.use == "decode" else length
        dtype = torch.bfloat16 if self.half else torch.float32
        mask = mask_of(self.kind, self.use, batch, length)
        return MaskRequest(mask, batch, q_len, length, length - q_len, device, dtype)


def attention_steps(device: torch.device, sizes: AttentionSizes) -> list[Step]:
    """Returns what is to be measured, short requests before long ones."""
    steps = []
    for half, use, kind in product((False, True), USES, KINDS):
        case, hopeless = Case(use, kind, half), set[str]()
        for length in sizes.lengths:
            name = case_name(use, kind, half, length)
            measure = partial(_measure, case, length, device, sizes, hopeless)
            steps.append(Step(f"{QUESTION} {name}", measure))
    return steps


def mask_of(kind: str, use: str, batch: int, length: int) -> MaskSpec:
    """Returns a mask of a kind, as it comes in training or in writing texts."""
    if kind == "causal":
        return Causal()
    if kind == "full":
        return Full()
    prefix = tuple(length * (row + 1) // (batch + 1) for row in range(batch))
    if kind == "prefix":
        return PrefixLM(prefix)
    if use == "training":
        sample = length // NUM_SAMPLES
        return Packed((((sample, sample // 2),) * NUM_SAMPLES,) * batch)
    pads = tuple(length * row // (4 * batch) for row in range(batch))
    return LeftPadded(PrefixLM(prefix), pads)


def _measure(
    case: Case,
    length: int,
    device: torch.device,
    sizes: AttentionSizes,
    hopeless: set[str],
    table: Table,
    watch: Watch,
) -> Finding | None:
    """Ranks the backends; `hopeless` are those that were far behind at shorter lengths."""
    request = case.request(device, sizes.batch, length)
    with torch.set_grad_enabled(case.use == "training"):
        built_in = next(_available(built_in_order(request), request))
        backends = [n for n in _contenders(case, request) if n not in hopeless or n == built_in]
        tensors = _tensors(request, sizes, case.use == "training")
        attends = {name: _attend(BACKENDS[name], request, tensors) for name in backends}
        masks = {name: partial(BACKENDS[name].prepare, request) for name in backends}
        seconds, of_mask = race(attends, watch), race(masks, watch)
    seconds = {name: taken + of_mask[name] / NUM_LAYERS for name, taken in seconds.items()}
    if built_in not in seconds:  # out of memory, for one
        return None
    ranked = order(seconds, built_in)
    hopeless |= {name for name in seconds if seconds[name] > HOPELESS * seconds[ranked[0]]}
    lengths = LENGTHS[LENGTHS.index(length) :] if length == sizes.lengths[-1] else (length,)
    for each in lengths:  # what is longer than all that is measured is taken to be alike
        name = case_name(case.use, case.kind, case.half, each)
        table.rankings.setdefault(QUESTION, {})[name] = list(up_to_the_last(ranked))
    what = f"{QUESTION} {case_name(case.use, case.kind, case.half, length)}"
    return Finding(what, ranked[0], built_in, seconds[built_in] / seconds[ranked[0]])


def _available(names: tuple[str, ...], request: MaskRequest) -> Iterator[str]:
    return (name for name in names if BACKENDS[name].why_not(request, 0.0) is None)


def _contenders(case: Case, request: MaskRequest) -> list[str]:
    """Returns what could serve.

    flex on a GPU in training alone, where shapes repeat, as it compiles for each. Triton on GPUs
    alone, elsewhere it would be interpreted. eager where the weights of all pairs take little
    memory: what is faster must not make a run fail that fitted before.
    """
    left_out = set()
    if case.use != "decode" and request.kv_len > LENGTHS[0]:
        left_out.add("eager")
    if request.device.type == "cuda" and case.use != "training":
        left_out.add("flex")
    if request.device.type != "cuda":
        left_out.add("triton")
    return [name for name in _available(tuple(BACKENDS), request) if name not in left_out]


def _tensors(request: MaskRequest, sizes: AttentionSizes, training: bool) -> list[Tensor]:
    """Returns queries, keys and values, [B, T or S, N, H]."""
    generator = torch.Generator(request.device).manual_seed(0)
    return [
        torch.randn(
            *(request.batch, length, sizes.num_heads, sizes.head_dim),
            generator=generator,
            device=request.device,
            dtype=request.dtype,
            requires_grad=training,
        )
        for length in (request.q_len, request.kv_len, request.kv_len)
    ]


def _attend(backend: AttentionBackend, request: MaskRequest, tensors: list[Tensor]) -> Call:
    """Returns a call of the backend, with the backward where gradients are wanted."""
    q_BTNH, k_BSNH, v_BSNH = tensors
    scaling = Scaling(q_BTNH.shape[-1] ** -0.5)
    prepared: list[object] = []

    def attend() -> object:
        if not prepared:  # here, so that what fails in it takes no part
            prepared.append(backend.prepare(request))
        out = backend.attend(prepared[0], q_BTNH, k_BSNH, v_BSNH, scaling, 0.0)
        return torch.autograd.grad(out, tensors, out.detach()) if out.requires_grad else out

    return attend
