"""The sandbox where bubblewrap is missing: util-linux's `unshare`, and mounts of our own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from glm_core.agent.executor.enclosure import Launch, is_privileged, session_user, warden_command
from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.protocol import SandboxUnavailable
from glm_core.agent.executor.view import sandbox_view


class Unshare:
    """Namespaces by `unshare`, mounts by inside/mounts.py.

    Args:
        folders: what can be read in it beside the system and this Python.
    """

    name = "unshare"
    is_sandboxed = True
    remedy = "apt-get install util-linux"

    def __init__(self, folders: tuple[str, ...] = ()) -> None:
        self._folders = folders

    @contextmanager
    def launch(self, limits: ExecutorLimits) -> Iterator[Launch]:
        program = shutil.which("unshare")
        if program is None:
            raise SandboxUnavailable(f"unshare is not installed: {self.remedy}")
        uid = session_user()
        view = sandbox_view(limits, uid or 0, self._folders)
        user = [] if is_privileged() else ["--user", "--map-root-user"]
        yield Launch(
            command=[
                program,
                *("--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"),
                *user,
                *("--fork", "--kill-child=SIGKILL", "--propagation", "private", "--"),
                *warden_command(),
            ],
            config={
                "uid": uid,
                "mounts": [asdict(mount) for mount in view],
                "build_mounts": True,
            },
        )
