"""Chooses an attention backend, once per forward."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from glm_core.attention.backend import AttentionBackend, MaskRequest, Scaling
from glm_core.attention.compiled import CompiledAttention
from glm_core.attention.eager import EagerAttention
from glm_core.attention.flex import FlexAttention
from glm_core.attention.sdpa import SdpaAttention
from glm_core.attention.spec import Causal, Full, MaskSpec, PrefixLM
from glm_core.attention.triton import TritonAttention
from glm_core.attention.xformers import XformersAttention
from glm_kernels.measured import ranking, remembers

logger = logging.getLogger(__name__)

_COMPILED = CompiledAttention()
BACKENDS: dict[str, AttentionBackend] = {
    backend.name: backend
    for backend in (
        EagerAttention(),
        SdpaAttention(),
        FlexAttention(),
        TritonAttention(),
        XformersAttention(),
        _COMPILED,
    )
}
SERVES_ALL = ("sdpa", "eager")
"""Backends that take every request: none is asked behind them."""

QUESTION = "attention"
"""Under which a table of measured choices ranks the backends."""
LENGTHS = (128, 512, 2048, 8192)
"""Numbers of keys that are told apart there, by the nearest."""
_BORDERS = (256, 1024, 4096)
_KINDS: dict[type[MaskSpec], str] = {Causal: "causal", Full: "full", PrefixLM: "prefix"}


@dataclass(frozen=True)
class PreparedAttention:
    """A backend together with its form of the mask: what each layer calls."""

    backend: AttentionBackend
    mask: Any

    def __call__(
        self,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        scaling: Scaling,
        dropout: float = 0.0,
    ) -> Tensor:
        """Returns the weighted values, [B, T, N, H]."""
        return self.backend.attend(self.mask, q_BTNH, k_BSKH, v_BSKH, scaling, dropout)


def prepare_attention(
    request: MaskRequest, name: str = "auto", dropout: float = 0.0
) -> PreparedAttention:
    """Chooses the backend and builds its mask.

    Args:
        name: `auto`, or a key of BACKENDS.
        dropout: probability of dropping an attention weight.

    Raises:
        ValueError: the name is unknown, or the named backend cannot serve the request. `auto`
            falls back instead, with one warning that gives the reason.
    """
    check_name(name)
    if name != "auto":
        reason = BACKENDS[name].why_not(request, dropout)
        if reason is not None:
            raise ValueError(f"attention backend {name!r} cannot be used: {reason}; choose auto")
        return PreparedAttention(BACKENDS[name], BACKENDS[name].prepare(request))
    candidates = _preferred(request)
    for candidate, after in pairwise(candidates):
        reason = BACKENDS[candidate].why_not(request, dropout)
        if reason is None:
            return PreparedAttention(BACKENDS[candidate], BACKENDS[candidate].prepare(request))
        _warn_once(f"attention falls back from {candidate} to {after}: {reason}")
    last = BACKENDS[candidates[-1]]
    return PreparedAttention(last, last.prepare(request))


def check_name(name: str) -> None:
    """Raises ValueError when no backend has the name, and it is not `auto`."""
    if name not in ("auto", *BACKENDS):
        raise ValueError(
            f"attention backend {name!r} is unknown: choose auto, {', '.join(BACKENDS)}"
        )


def _preferred(request: MaskRequest) -> tuple[str, ...]:
    """Backends from the best to one that takes every request: as measured here, else built in."""
    half = request.dtype in (torch.bfloat16, torch.float16)
    if not half and request.dtype != torch.float32:
        return built_in_order(request)
    measured = _measured_order(
        request.device, use_of(request), kind_of(request), half, length_class(request.kv_len)
    )
    return up_to_the_last((*measured, *built_in_order(request)))


def built_in_order(request: MaskRequest) -> tuple[str, ...]:
    """Backends from the best to one that takes every request, on machines that never measured.

    On a CPU the compiled kernel for few queries, as in decoding. On a GPU with a mask that has
    blocks to skip: triton, or flex for training. flex compiles for each shape: worth it where
    shapes repeat, not for prompts of all lengths. sdpa otherwise.
    """
    if _COMPILED.is_faster(request):
        return (_COMPILED.name, "sdpa")
    structured = not isinstance(request.spec, Causal | Full)
    if request.device.type != "cuda" or not structured:
        return ("sdpa",)
    return ("triton", "flex", "sdpa") if torch.is_grad_enabled() else ("triton", "sdpa")


def use_of(request: MaskRequest) -> str:
    """Returns what a request is for: training, reading a prompt, or decoding a column."""
    if torch.is_grad_enabled():
        return "training"
    return "decode" if request.q_len == 1 else "prompt"


def kind_of(request: MaskRequest) -> str:
    """Returns the kind of a request's mask, as far as it matters for speed."""
    kind = _KINDS.get(type(request.spec), "packed")
    continued = kind == "causal" and request.q_offset > 0 and request.q_len > 1
    return "prefix" if continued else kind  # what is in the cache is visible to all


def length_class(kv_len: int) -> int:
    """Returns the entry of LENGTHS that is nearest to a number of keys."""
    return LENGTHS[sum(kv_len >= border for border in _BORDERS)]


def case_name(use: str, kind: str, half: bool, length: int) -> str:
    """Returns what a class of requests is called in a table."""
    return f"{use} {kind} {'half' if half else 'single'} {length}"


def _measured_order(
    device: torch.device, use: str, kind: str, half: bool, length: int
) -> tuple[str, ...]:
    # A CPU's table is that of a number of threads.
    num_threads = torch.get_num_threads() if device.type == "cpu" else 0
    return _looked_up(device, case_name(use, kind, half, length), num_threads)


# torch.compile runs it while tracing, and does not look inside.
_measured_order._dynamo_marked_constant = True  # type: ignore[attr-defined]


@remembers
@cache
def _looked_up(device: torch.device, case: str, num_threads: int) -> tuple[str, ...]:
    del num_threads
    return tuple(name for name in ranking(QUESTION, case, device) if name in BACKENDS)


def up_to_the_last(names: Iterable[str]) -> tuple[str, ...]:
    """Returns each name once, up to the first that takes every request."""
    order: list[str] = []
    for name in names:
        if name not in order:
            order.append(name)
        if name in SERVES_ALL:
            break
    return tuple(order)


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)
