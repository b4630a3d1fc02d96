"""What a row of a benchmark says about the machine."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import torch


def processor(with_amx: bool = True) -> str:
    """The processor's name, number of cores, and the instructions that torch can use.

    Args:
        with_amx: False where it is left out.
    """
    names = [line.partition(":")[2] for line in _cpuinfo().splitlines() if "model name" in line]
    name = " ".join((names or [platform.processor() or "unknown processor"])[0].split())
    units = f"{torch.backends.cpu.get_cpu_capability()}{' AMX' if with_amx and has_amx() else ''}"
    return f"{name}; {os.cpu_count()} cores; {platform.machine()} {units}"


def has_amx() -> bool:
    """Whether the processor multiplies tiles of 8-bit integers."""
    return " amx_int8" in _cpuinfo()


def graphics_processor() -> str:
    """The GPU's name and compute capability."""
    return "{}; sm{}{}".format(torch.cuda.get_device_name(), *torch.cuda.get_device_capability())


def available_bytes(device: str = "cpu") -> int:
    """Memory that new processes can have; 8 GiB where the system does not tell."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return 8 << 30
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


@cache
def _cpuinfo() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
