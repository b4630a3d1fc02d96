"""How much memory there is, and how people write amounts of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

MAX_MEMORY = "max_memory"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory that a model may use."""

    num_bytes: int
    source: str
    """Who sets the limit, for people: "free on cuda:0", or MAX_MEMORY."""

    def in_words(self) -> str:
        """A clause for errors."""
        amount = readable(self.num_bytes)
        if self.source == MAX_MEMORY:
            return f"max_memory is {amount}"
        return f"only {amount} are {self.source}"


def parse_memory(value: int | str, setting: str = MAX_MEMORY) -> int:
    """Bytes of an amount such as 6000000000, "6GB" or "512MiB".

    Args:
        value: bytes, or a number with a unit: k, M, G, T (powers of 1000), Ki, Mi, Gi, Ti (powers
            of 1024), each with or without a B, in any case.
        setting: what the user calls it, for the error.

    Raises:
        ValueError: it is not an amount of memory, or not positive.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", str(value).lower())
    if match is None or isinstance(value, bool):
        raise ValueError(
            f"{setting} is {value!r}: give bytes, or a number with a unit like 6GB or 512MiB"
        )
    num_bytes = int(float(match[1]) * (_UNITS | _BINARY_UNITS)[match[2] or ""])
    if num_bytes == 0:
        raise ValueError(f"{setting} is {value!r}: it must be at least 1 byte")
    return num_bytes


def readable(num_bytes: float) -> str:
    """An amount for people, in powers of 1000: "4.9 GB", "12.3 MB"."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= 0.95 * size or unit == "kB":
            break
    return f"{num_bytes / size:,.1f} {unit}"


def memory_budget(device: torch.device, max_memory: int | str | None) -> Budget | None:
    """What a model may use on `device`: what is free, or `max_memory` if that is less.

    Returns:
        None where neither is known.

    Raises:
        ValueError: `max_memory` is not an amount of memory.
    """
    asked = None if max_memory is None else Budget(parse_memory(max_memory), MAX_MEMORY)
    num_bytes = free_memory(device)
    free = None if num_bytes is None else Budget(num_bytes, f"free on {device}")
    known = [budget for budget in (asked, free) if budget is not None]
    return min(known, key=lambda budget: budget.num_bytes, default=None)


def free_memory(device: torch.device) -> int | None:
    """Bytes that a new allocation on `device` can have; None where nobody tells.

    On the CPU that is what the kernel can give without swapping, or what the limit of the
    container (cgroup) leaves, whichever is less.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    known = [amount for amount in (_system_free(), _cgroup_free()) if amount is not None]
    return min(known, default=None)


def _system_free() -> int | None:
    try:
        match = re.search(r"^MemAvailable:\s*(\d+) kB", _MEMINFO.read_text(), flags=re.MULTILINE)
    except OSError:
        return _psutil_free()
    return None if match is None else int(match[1]) * 1024


def _psutil_free() -> int | None:
    """For systems without /proc."""
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    return int(psutil.virtual_memory().available)


def _cgroup_free() -> int | None:
    """What the tightest limit above this process leaves; file cache that can go counts as free."""
    known = [_left_in(folder) for folder in _own_cgroups()]
    return min((left for left in known if left is not None), default=None)


def _own_cgroups() -> list[Path]:
    """Folders of this process's memory cgroup and of those around it, of version 2 and 1."""
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _CGROUPS / "memory" if controllers else _CGROUPS
        inner = root / path.lstrip("/")
        # inside a container the path may be that of the host, and only the root is there
        folders += [root, *(part for part in (inner, *inner.parents) if root in part.parents)]
    return folders


def _left_in(folder: Path) -> int | None:
    limit = _number(folder, "memory.max", "memory.limit_in_bytes")
    used = _number(folder, "memory.current", "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    try:
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        stat = {}
    cache = stat.get("total_inactive_file", stat.get("inactive_file", "0"))
    return max(limit - used + int(cache), 0)


def _number(folder: Path, *names: str) -> int | None:
    """The number in the first of the files that is there; None if it says "max"."""
    for name in names:
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() else None
    return None
