"""The sandbox of choice: bubblewrap, the program that Flatpak keeps its applications in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import PurePosixPath

from glm_core.agent.executor.enclosure import (
    Launch,
    is_privileged,
    session_user,
    text_descriptors,
    warden_command,
)
from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.protocol import SandboxUnavailable
from glm_core.agent.executor.view import INSIDE_TARGET, Mount, sandbox_view

_CAPABILITIES = (
    "CAP_SYS_ADMIN",  # to limit the number of files; given up before any code runs, see privileges
    "CAP_DAC_OVERRIDE",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_SYS_PTRACE",
)


class Bubblewrap:
    """Namespaces and mounts by `bwrap`.

    Args:
        folders: what can be read in it beside the system and this Python.
    """

    name = "bubblewrap"
    is_sandboxed = True
    remedy = "apt-get install bubblewrap"

    def __init__(self, folders: tuple[str, ...] = ()) -> None:
        self._folders = folders

    @contextmanager
    def launch(self, limits: ExecutorLimits) -> Iterator[Launch]:
        program = shutil.which("bwrap")
        if program is None:
            raise SandboxUnavailable(f"bubblewrap is not installed: {self.remedy}")
        uid = session_user()
        view = sandbox_view(limits, os.geteuid() if uid is None else uid, self._folders)
        with text_descriptors([mount.source for mount in view if mount.kind == "text"]) as texts:
            yield Launch(
                command=[
                    program,
                    *_namespaces(),
                    *_mounts(view, texts),
                    "--",
                    *warden_command(INSIDE_TARGET),
                ],
                descriptors=tuple(texts),
                config={"uid": uid, "mounts": [asdict(mount) for mount in view]},
            )


def _namespaces() -> list[str]:
    """Every namespace of its own; `--die-with-parent` is left to the warden.

    bwrap would die with the *thread* that started it, which in a server ends before the session.
    The warden holds a descriptor of the whole process instead.
    """
    flags = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    flags += ["--unshare-cgroup-try", "--hostname", "sandbox", "--new-session", "--as-pid-1"]
    if not is_privileged():
        flags.append("--unshare-user")
    flags += ["--cap-drop", "ALL"]
    for capability in _CAPABILITIES:
        flags += ["--cap-add", capability]
    return flags


def _mounts(view: tuple[Mount, ...], texts: list[int]) -> list[str]:
    """Returns the view as options of bwrap.

    The folders above a mount are made before it: bwrap makes them by itself, but such that only
    root may pass through.

    Args:
        view: outer folders before inner ones.
        texts: descriptors of the view's texts, in its order.
    """
    flags: list[str] = []
    remaining = iter(texts)
    made = {PurePosixPath("/")}
    for mount in view:
        target = PurePosixPath(mount.target)
        for folder in reversed(target.parents):
            flags += [] if folder in made else ["--dir", str(folder)]
            made.add(folder)
        if mount.kind == "tmpfs":  # hides what was made below it
            made = {folder for folder in made if target not in folder.parents} | {target}
        if mount.kind == "text":
            flags += ["--ro-bind-data", str(next(remaining)), mount.target]
        elif mount.kind == "tmpfs":
            flags += ["--size", str(mount.size), "--tmpfs", mount.target]
        elif mount.kind == "proc":
            flags += ["--proc", mount.target]
        else:
            option = {"bind": "--ro-bind", "device": "--dev-bind", "symlink": "--symlink"}
            flags += [option[mount.kind], mount.source, mount.target]
    return [*flags, "--remount-ro", "/", "--chdir", "/"]
