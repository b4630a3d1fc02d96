"""What a back end of the code interpreter has to say: how the first process is started."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.view import INSIDE

_CAP_SYS_ADMIN = 21
_UNUSED_USERS = range(0x7100_0000, 0x7200_0000)
"""Of no distribution: above container ranges, below 2**31."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A command that becomes the first process (inside/warden.py), and what it is told."""

    command: list[str]
    descriptors: tuple[int, ...] = ()
    """File descriptors that the command inherits."""
    config: dict[str, Any] = field(default_factory=dict)
    """Overrides fields of what cell.py sends."""


class Enclosure(Protocol):
    """One way to keep code in."""

    name: str
    is_sandboxed: bool
    remedy: str
    """What a person does when it does not work."""

    def launch(self, limits: ExecutorLimits) -> AbstractContextManager[Launch]:
        """Returns the command; what it inherits is there until the context ends.

        Raises:
            SandboxUnavailable: a program is missing.
        """


def warden_command(inside: str | Path = INSIDE) -> list[str]:
    """Returns the command of the first process, which needs no package.

    Args:
        inside: where it finds the folder `inside/`.
    """
    code = f"import sys; sys.path.insert(0, {str(Path(inside).parent)!r}); "
    code += "from inside.warden import main; main()"
    return [sys.executable, "-I", "-S", "-B", "-c", code]


def is_privileged() -> bool:
    """Returns whether this process is a root that may mount, so that it needs no user namespace."""
    if os.geteuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1]
    return bool(int(mask, 16) >> _CAP_SYS_ADMIN & 1)


def session_user() -> int | None:
    """Returns a user of the machine for one session's code, or None where only ours can be had.

    The kernel limits the processes of each user and never those of root, and one user's sessions
    would share one limit: so each session of a root is another user, whom nothing belongs to.
    """
    if not is_privileged():
        return None
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    first, _, count = (int(value) for value in ranges[-1])
    if first + count >= _UNUSED_USERS.stop:
        return random.SystemRandom().choice(_UNUSED_USERS)
    return random.SystemRandom().randrange(first + count // 2, first + count - 1)


@contextmanager
def text_descriptors(texts: list[str]) -> Iterator[list[int]]:
    """Yields descriptors from which a command that inherits them reads the texts."""
    descriptors = []
    try:
        for text in texts:
            descriptors.append(os.memfd_create("text"))
            os.write(descriptors[-1], text.encode())
            os.lseek(descriptors[-1], 0, os.SEEK_SET)
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
