"""Which implementation of an op runs: a table of backends and the choice among them.

Every op has the backends ``reference`` (plain formulas, the oracle) and ``torch`` (stock PyTorch
calls); some have ``cpu`` (fewer passes over memory) and ``triton`` (kernels for GPUs), which
register themselves beside the first two with a higher priority. The choice is made once per (op,
device) and remembered, so a call costs one dictionary lookup.

The environment variable ``GLM_KERNELS_BACKEND`` makes an explicit choice for every op
(``reference``) or for some (``rms_norm=reference,gelu=torch``); `use_backend` does so in code.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

logger = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "GLM_KERNELS_BACKEND"
AUTO = "auto"
EVERY_OP = "*"

REFERENCE_PRIORITY, TORCH_PRIORITY, CPU_PRIORITY, TRITON_PRIORITY = -100, 0, 10, 20

Implementation = Callable[..., Any]
ImplementationT = TypeVar("ImplementationT", bound=Implementation)


@dataclass(frozen=True, slots=True)
class Backend:
    """One implementation of one op."""

    name: str
    devices: frozenset[str] | None
    """Device types it runs on, e.g. {"cuda"}; None means every device."""
    on_request: frozenset[str]
    """Device types on which it runs too, but only where it is chosen by name."""
    priority: int
    """The automatic choice takes the highest priority that is available."""
    unavailable: Callable[[], str | None]
    """Returns the reason why it cannot run here, or None when it can."""
    traceable: bool
    """Whether torch.compile can trace it."""
    left_to_compiler: bool
    """Whether torch.compile gets another backend, which it fuses better, unless this is named."""

    def unsuitable(self, device: str, tracing: bool, by_name: bool = False) -> str | None:
        """Return why it is not made for this call, or None when it is."""
        requested = by_name and device in self.on_request
        if self.devices is not None and device not in self.devices and not requested:
            return f"it runs on {', '.join(sorted(self.devices))} only"
        if tracing and not self.traceable:
            return "torch.compile cannot trace it"
        if tracing and self.left_to_compiler and not by_name:
            return "torch.compile fuses the formula itself"
        return None

    def refusal(self, device: str, tracing: bool) -> str | None:
        """Return why this backend, chosen by name, cannot run on `device`, or None when it can."""
        return self.unsuitable(device, tracing, by_name=True) or self.unavailable()


def _always_available() -> str | None:
    return None


def _parse_choices(text: str) -> dict[str, str]:
    """Parse ``reference`` or ``rms_norm=reference,gelu=torch`` into {op or "*": backend}."""
    choices: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        op, _, backend = part.rpartition("=")
        choices[op.strip() or EVERY_OP] = backend.strip()
    return choices


_backends: dict[str, dict[str, Backend]] = {}
_choices: dict[str, str] = _parse_choices(os.environ.get(ENVIRONMENT_VARIABLE, ""))
_functions: dict[tuple[str, str], Implementation] = {}
_resolved: dict[tuple[str, str, str], Implementation] = {}
_warned: set[tuple[str, str]] = set()


def register(
    op: str,
    backend: str,
    *,
    devices: Collection[str] | None = None,
    on_request: Collection[str] = (),
    priority: int = TORCH_PRIORITY,
    unavailable: Callable[[], str | None] = _always_available,
    traceable: bool = True,
    left_to_compiler: bool = False,
) -> Callable[[ImplementationT], ImplementationT]:
    """Return a decorator that makes a function the implementation `backend` of `op`.

    Args:
        op: name of the op; the function takes the op's public arguments.
        backend: name of the implementation.
        devices: device types it runs on; None for all.
        on_request: device types on which it runs too, but only where it is chosen by name.
        priority: the automatic choice prefers the highest (reference -100, torch 0, cpu 10,
            triton 20).
        unavailable: called at the first automatic or explicit choice; returns the reason why
            the backend cannot run on this machine, or None.
        traceable: False keeps it from being chosen inside torch.compile.
        left_to_compiler: True keeps it from being chosen there too, but where it is named.
    """
    kinds = None if devices is None else frozenset(devices)

    def decorate(function: ImplementationT) -> ImplementationT:
        table = _backends.setdefault(op, {})
        table[backend] = Backend(
            backend,
            kinds,
            frozenset(on_request),
            priority,
            unavailable,
            traceable,
            left_to_compiler,
        )
        _functions[op, backend] = function
        _resolved.clear()
        return function

    return decorate


def dispatch(op: str, device: str, backend: str = AUTO) -> Implementation:
    """Return the implementation of `op` to call for tensors on `device`.

    Args:
        op: name of the op.
        device: device type, e.g. "cpu" or "cuda".
        backend: name of a backend, or "auto": the choice of `use_backend`, else of the
            environment variable, else the available backend of the highest priority.

    Raises:
        ValueError: the op is unknown, or an explicitly chosen backend cannot run.
    """
    if torch.compiler.is_compiling():
        return _functions[op, _choose_while_tracing(op, device, backend, tuple(_choices.items()))]
    function = _resolved.get((op, device, backend))
    if function is None:
        function = _resolved[op, device, backend] = _functions[
            op, _choose(op, device, backend, tracing=False)
        ]
    return function


def _choose(op: str, device: str, backend: str, tracing: bool) -> str:
    """Return the name of the backend that `dispatch` calls."""
    chosen = backend
    if chosen == AUTO:
        chosen = _choices.get(op, _choices.get(EVERY_OP, AUTO))
    if chosen == AUTO:
        return _automatic(op, device, tracing)
    return _explicit(op, device, chosen, tracing)


def _choose_while_tracing(
    op: str, device: str, backend: str, choices: tuple[tuple[str, str], ...]
) -> str:
    """As `_choose`; reading `choices` at the call makes the compiler trace again on a change."""
    del choices
    return _choose(op, device, backend, tracing=True)


# What torch.compiler.assume_constant_result sets. That decorator imports the whole compiler, a
# second of start-up time that eager runs need not pay.
_choose_while_tracing._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _table(op: str) -> dict[str, Backend]:
    if op not in _backends:
        raise ValueError(f"unknown op {op!r}; glm_kernels has: {', '.join(sorted(_backends))}")
    return _backends[op]


def _explicit(op: str, device: str, name: str, tracing: bool) -> str:
    backend = _table(op).get(name)
    reason = (
        "no such backend is registered" if backend is None else backend.refusal(device, tracing)
    )
    if backend is None or reason is not None:
        raise ValueError(
            f"backend {name!r} of op {op!r} is not available on {device!r}: {reason}. "
            f"Available: {', '.join(available_backends(op, device, tracing))}. Choose one of these "
            f"in {ENVIRONMENT_VARIABLE} or use_backend, or 'auto' to let glm_kernels choose."
        )
    return name


def _automatic(op: str, device: str, tracing: bool) -> str:
    table = _table(op)
    for backend in sorted(table.values(), key=lambda entry: -entry.priority):
        if backend.unsuitable(device, tracing) is not None:
            continue  # made for something else: passing it over is no loss worth a warning
        reason = backend.unavailable()
        if reason is None:
            return backend.name
        if (backend.name, reason) not in _warned:  # once for all ops that it keeps from running
            _warned.add((backend.name, reason))
            logger.warning("%s: falling back from backend %r: %s", op, backend.name, reason)
    raise ValueError(f"op {op!r} has no backend for device {device!r}; registered: {list(table)}")


def available_backends(op: str, device: str, tracing: bool = False) -> list[str]:
    """Return the names of the backends of `op` that can run on `device`, best first.

    Args:
        op: name of the op.
        device: device type.
        tracing: whether the call is made inside torch.compile.
    """
    ordered = sorted(_table(op).values(), key=lambda entry: -entry.priority)
    return [entry.name for entry in ordered if entry.refusal(device, tracing) is None]


def registered_ops() -> list[str]:
    """Return the names of all ops."""
    return sorted(_backends)


@contextmanager
def use_backend(backend: str, op: str = EVERY_OP) -> Iterator[None]:
    """Choose `backend` explicitly inside the ``with`` block, for one op or for every op.

    Raises:
        ValueError: at the first call of an op that has no such backend here.
    """
    before = dict(_choices)
    if op == EVERY_OP:
        _choices.clear()
    _choices[op] = backend
    _resolved.clear()
    try:
        yield
    finally:
        _choices.clear()
        _choices.update(before)
        _resolved.clear()
