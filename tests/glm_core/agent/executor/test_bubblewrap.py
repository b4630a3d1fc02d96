"""How the view of a sandbox is told to bwrap."""

from __future__ import annotations

from glm_core.agent.executor.bubblewrap import _mounts
from glm_core.agent.executor.view import Mount


def test_folders_below_a_tmpfs_are_made_in_it_when_python_lies_there() -> None:
    view = (
        Mount(kind="tmpfs", target="/tmp", size=1),
        Mount(kind="bind", source="/tmp/a/b/venv", target="/tmp/a/b/venv"),
        Mount(kind="bind", source="/tmp/a/c", target="/tmp/a/c"),
    )
    flags = " ".join(_mounts(view, []))
    assert flags.startswith("--size 1 --tmpfs /tmp --dir /tmp/a --dir /tmp/a/b --ro-bind /tmp/a/b")
    assert flags.count("--dir /tmp/a ") == 1
