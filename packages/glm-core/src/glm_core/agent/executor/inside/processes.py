"""The processes of a sandbox: which there are, what they use, and their end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PATIENCE_S = 3.0
_PAUSE_S = 0.002


@dataclass
class Usage:
    """What processes use together."""

    threads: int = 0
    cpu_s: float = 0.0
    resident_bytes: int = 0
    """Pages that processes share count once for each of them."""


@dataclass(frozen=True)
class _Stat:
    has_ended: bool
    parent: int
    cpu_ticks: int
    threads: int
    pages: int


def others() -> list[int]:
    """Returns this process's descendants.

    The first process of a pid namespace has all others below it; elsewhere orphans come back to
    this process because it is their subreaper.
    """
    if os.getpid() == 1:
        return [pid for pid in _all() if pid != 1]
    parents = {pid: stat.parent for pid in _all() if (stat := _stat(pid)) is not None}
    found: list[int] = []
    reached = {os.getpid()}
    while reached:
        reached = {pid for pid, parent in parents.items() if parent in reached}
        found += reached
    return found


def usage(pids: list[int]) -> Usage:
    """Adds up what processes use, and the processor time of those that they and we waited for."""
    own = os.times()
    total = Usage(cpu_s=own.children_user + own.children_system)
    for pid in pids:
        stat = _stat(pid)
        if stat is not None:
            total.threads += stat.threads
            total.cpu_s += stat.cpu_ticks / _TICKS
            total.resident_bytes += stat.pages * _PAGE
    return total


def shared_once_bytes(pids: list[int]) -> int:
    """Returns the memory of processes, with shared pages divided among those that share them."""
    return sum(_proportional_bytes(pid) for pid in pids)


def kill_all() -> None:
    """Ends all processes below this one, and waits until they have ended."""
    if os.getpid() == 1:
        # One call under one lock: a process that forks meanwhile takes its child along.
        _send(-1, signal.SIGKILL)
        _reap_all()
    else:
        while not kill_except(None):
            continue


def kill_except(spare: int | None) -> bool:
    """Ends all processes below this one but one; returns whether none is left after some time.

    They are stopped before they are ended: one that forks faster than it is found would otherwise
    always be ahead.
    """
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        stopped: set[int] = set()
        while found := _alive(spare) - stopped:
            for pid in found:
                _send(pid, signal.SIGSTOP)
            stopped |= found
        for pid in stopped:
            _send(pid, signal.SIGKILL)
        reap(spare)
        if not _alive(spare):
            return True
        time.sleep(_PAUSE_S)  # they are about to end
    return False


def reap(spare: int | None) -> None:
    """Collects the processes that have ended, but not `spare`, whose status somebody waits for."""
    for pid in others():
        stat = None if pid == spare else _stat(pid)
        if stat is not None and stat.parent == os.getpid():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue


def _reap_all() -> None:
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return


def _alive(spare: int | None) -> set[int]:
    """Returns the processes below this one, but one, that have not ended."""
    stats = {pid: _stat(pid) for pid in others() if pid != spare}
    return {pid for pid, stat in stats.items() if stat is not None and not stat.has_ended}


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    """Reads /proc/PID/stat (proc(5)); None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            values = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    ticks = sum(int(value) for value in values[11:15])
    return _Stat(values[0] in (b"Z", b"X"), int(values[1]), ticks, int(values[17]), int(values[21]))


def _proportional_bytes(pid: int) -> int:
    """Reads the proportional set size; what only counts fully is counted fully."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            line = next((line for line in file if line.startswith("Pss:")), "Pss: 0 kB")
        return int(line.split()[1]) * 1024
    except OSError:
        stat = _stat(pid)
        return 0 if stat is None else stat.pages * _PAGE
