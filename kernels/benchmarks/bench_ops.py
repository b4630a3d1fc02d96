"""Time every op of glm_kernels against the formula that models usually carry, forward + backward.

    python kernels/benchmarks/bench_ops.py --out kernels/benchmarks/results/cpu.csv
    python kernels/benchmarks/bench_ops.py --only rms_norm --rounds 30

Ours and the peer formula alternate within one run, so that a busy machine slows both; with one
thread (the default) the clock counts the CPU time of the process, not the time it waited for
others. A row has the median and the quartiles of each in milliseconds, and ratio = peer median /
our median: above 1 is faster than the peer. Rows of op `cross_entropy_memory` have the peak memory
of a child process above what the inputs take, in MiB. Both sides run with `keep_freed_memory`
unless told otherwise.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peers import CASES, Case

from glm_kernels import keep_freed_memory

COLUMNS = (
    "op,shape,dtype,device,cpu,threads,clock,torch,commit,unit,"
    "ours,ours_q1,ours_q3,peer,peer_q1,peer_q3,ratio"
).split(",")


def time_pair(case: Case, rounds: int) -> tuple[list[float], list[float]]:
    """Return the times of ours and of the peer in milliseconds, taken by turns."""
    clock = time.process_time if clock_name() == "cpu" else time.perf_counter
    sides = (case.step(case.ours), case.step(case.peer))
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 3):  # the first three warm up
        for side, record in zip(sides, times, strict=True):
            start = clock()
            side()
            if turn >= 3:
                record.append((clock() - start) * 1e3)
    return times


def clock_name() -> str:
    """CPU time adds up over threads, spinning ones too, so it serves for one thread only."""
    return "cpu" if torch.get_num_threads() == 1 else "wall"


def summary(values: list[float]) -> list[str]:
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return [f"{value:.3f}" for value in (median, first, third)]


def peak_memory(case_name: str, side: str) -> float:
    """Return the peak memory of one step in a fresh process, above its inputs, in MiB."""
    command = [sys.executable, __file__, "--child", case_name, side]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.strip().splitlines()[-1])


def run_child(case_name: str, side: str) -> None:
    """Print the peak memory that one step needs above what stood before it, in MiB."""
    torch.set_num_threads(1)
    case = CASES[case_name]()
    step: Callable[[], None] = case.step(getattr(case, side))
    before = status_mib("VmRSS")
    step()
    print(status_mib("VmHWM") - before)


def status_mib(field: str) -> float:
    """Return a field of this process's memory status in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"{field} is not in /proc/self/status; memory rows need Linux")


def machine() -> dict[str, str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "device": "cpu",
        "cpu": cpu_name(),
        "threads": str(torch.get_num_threads()),
        "clock": clock_name(),
        "torch": torch.__version__,
        "commit": commit or "unknown",
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    amx = " amx_bf16" if "amx_bf16" in text else ""
    return (names[0] if names else platform.processor()) + amx


def rows(only: str, rounds: int) -> list[dict[str, str]]:
    """Run the cases whose name contains `only`."""
    found = []
    about = machine()
    for name in (name for name in CASES if only in name):
        case = CASES[name]()
        measured: list[tuple[str, str, list[str], list[str]]] = []
        if case.time:
            ours, peer = time_pair(case, rounds)
            measured.append((case.op, "ms", summary(ours), summary(peer)))
        if case.memory:
            ours_mib, peer_mib = (f"{peak_memory(name, side):.0f}" for side in ("ours", "peer"))
            measured.append(("cross_entropy_memory", "MiB", [ours_mib] * 3, [peer_mib] * 3))
        for op, unit, ours_row, peer_row in measured:
            values = [op, case.shape, case.dtype, *about.values(), unit, *ours_row, *peer_row]
            values.append(f"{float(peer_row[0]) / float(ours_row[0]):.2f}")
            found.append(dict(zip(COLUMNS, values, strict=True)))
            print(f"{op:22} {case.shape:20} {case.dtype:10} ", end="")
            print(f"ours {ours_row[0]:>9} peer {peer_row[0]:>9} {unit} ratio {values[-1]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="CSV file to write")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--rounds", type=int, default=15, help="measured turns of each side")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    parser.add_argument("--default-allocator", action="store_true", help="leave malloc as it is")
    parser.add_argument("--child", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(*arguments.child)
        return
    torch.set_num_threads(arguments.threads)
    if not arguments.default_allocator:
        keep_freed_memory()
    measured = rows(arguments.only, arguments.rounds)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(measured)


if __name__ == "__main__":
    main()
