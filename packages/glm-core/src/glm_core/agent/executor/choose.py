"""Takes a sandbox that works on this machine, or says what to install."""

from __future__ import annotations

import functools

from glm_core.agent.executor.bubblewrap import Bubblewrap
from glm_core.agent.executor.cell import Cell
from glm_core.agent.executor.enclosure import Enclosure
from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.local import UnsafeLocal
from glm_core.agent.executor.protocol import SandboxUnavailable
from glm_core.agent.executor.session import KernelExecutor
from glm_core.agent.executor.unshare import Unshare

_ENCLOSURES: dict[str, type[Bubblewrap | Unshare | UnsafeLocal]] = {
    "bubblewrap": Bubblewrap,
    "unshare": Unshare,
    "unsafe-local": UnsafeLocal,
}
KINDS = ("auto", *_ENCLOSURES)


def executor(kind: str = "auto", limits: ExecutorLimits | None = None) -> KernelExecutor:
    """Returns a code interpreter; its kernel starts with the first run.

    Args:
        kind: auto (the first sandbox that works here), bubblewrap, unshare, or unsafe-local, which
            is no sandbox and is never taken unless it is named.
        limits: what the code may use; None for the defaults.

    Raises:
        ValueError: the kind is unknown.
        SandboxUnavailable: no sandbox works here, or not the one that was named.
        MissingExtraError: ipykernel is not installed.
    """
    return KernelExecutor(enclosure(kind), limits)


def enclosure(kind: str = "auto", folders: tuple[str, ...] = ()) -> Enclosure:
    """Returns a way to keep code in that works here.

    Args:
        kind: as of `executor`.
        folders: what the code can read beside the system and this Python, such as a compiler.

    Raises:
        ValueError: the kind is unknown.
        SandboxUnavailable: no sandbox works here, or not the one that was named.
    """
    if kind not in KINDS:
        raise ValueError(
            f"executor {kind!r} is unknown: choose one of {', '.join(KINDS)}; unsafe-local is no "
            "sandbox"
        )
    if kind == "auto":
        kind = working_sandbox()
    elif _ENCLOSURES[kind].is_sandboxed:
        probe(_ENCLOSURES[kind]())
    return _ENCLOSURES[kind](folders)


def probe(enclosure: Enclosure) -> None:
    """Starts an enclosure and ends it.

    Raises:
        SandboxUnavailable: it does not start; the message says why.
    """
    Cell(enclosure, ExecutorLimits(start_s=10.0)).close()


@functools.cache
def working_sandbox() -> str:
    """Returns the name of the first sandbox that works here; what was found is remembered.

    Raises:
        SandboxUnavailable: there is none; the message says why, and what to install.
    """
    reasons = []
    for name, make in _ENCLOSURES.items():
        if not make.is_sandboxed:
            continue
        try:
            probe(make())
            return name
        except SandboxUnavailable as error:
            reasons.append(str(error))
    raise SandboxUnavailable(
        f"no sandbox for the code interpreter works here ({'; '.join(reasons)}): install one with "
        f"`{Bubblewrap.remedy}`, allow user namespaces, or, for code that you have read, name the "
        "one without protection: unsafe-local"
    )
