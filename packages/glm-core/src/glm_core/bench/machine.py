"""What a row of a benchmark says about the machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def processor(with_amx: bool) -> str:
    """The processor: its name, number of cores, and the instructions that are used."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="ascii", errors="replace") if info.exists() else ""
    names = [line.partition(":")[2].strip() for line in lines.splitlines() if "model name" in line]
    name = " ".join((names or [platform.processor() or "unknown processor"])[0].split())
    isa = f"{torch.backends.cpu.get_cpu_capability()}{' AMX' if with_amx else ''}"
    return f"{name}; {os.cpu_count()} cores; {platform.machine()} {isa}"


def available_bytes() -> int:
    """Memory that new processes can have; 8 GiB where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return 8 << 30
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
