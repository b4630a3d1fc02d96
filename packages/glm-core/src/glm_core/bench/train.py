"""`glm bench train`: this Trainer against transformers, alternating round by round."""

from __future__ import annotations

import csv
import json
import logging
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from glm_core.bench.shapes import TRAIN_SHAPES

logger = logging.getLogger(__name__)

WARM_UP_ROUNDS = 1


@dataclass(frozen=True)
class TrainRow:
    """One comparison: a shape, eager or compiled."""

    shape: str
    mode: str
    precision: str
    ours_tokens_per_second: float
    transformers_tokens_per_second: float
    speed_ratio: float
    """Median over the rounds of ours / theirs; above 1 we are faster."""
    speed_ratio_low: float
    speed_ratio_high: float
    ours_peak_mib: float
    transformers_peak_mib: float
    memory_ratio: float
    """Ours / theirs; below 1 we need less."""
    rounds: int
    threads: int
    torch: str
    device: str


class Worker:
    """A contender's process."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.seconds: list[float] = []
        self.peak_bytes = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "glm_core.bench.workers", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def round(self) -> None:
        """Trains one round and notes its time."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.job['contender']} ({self.job['shape']}) stopped with status "
                f"{self.process.wait()}; its own message stands above"
            )
        result = json.loads(line)
        self.seconds.append(result["seconds"])
        self.peak_bytes = result["peak_bytes"]

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def compare(
    shape: str, compiled: bool, precision: str, rounds: int, steps: int, threads: int
) -> TrainRow:
    """Runs both contenders by turns, one round each, and compares them round by round."""
    job = {"shape": shape, "compiled": compiled, "precision": precision, "steps": steps}
    job["threads"] = threads
    ours, theirs = (Worker({**job, "contender": name}) for name in ("ours", "transformers"))
    started = time.monotonic()
    try:
        for number in range(WARM_UP_ROUNDS + rounds):
            # Who goes first alternates as well, so that neither always runs on a warmer machine.
            for worker in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                worker.round()
            done = number + 1
            left = (time.monotonic() - started) / done * (WARM_UP_ROUNDS + rounds - done)
            logger.info(
                "%s %s: round %d/%d, eta %.0fs",
                shape,
                "compiled" if compiled else "eager",
                done,
                WARM_UP_ROUNDS + rounds,
                left,
            )
    finally:
        ours.close()
        theirs.close()
    return _row(ours, theirs)


def _row(ours: Worker, theirs: Worker) -> TrainRow:
    job, shape = ours.job, TRAIN_SHAPES[ours.job["shape"]]
    tokens = shape.batch_size * shape.seq_length * job["steps"]
    mine, other = ours.seconds[WARM_UP_ROUNDS:], theirs.seconds[WARM_UP_ROUNDS:]
    ratios = [b / a for a, b in zip(mine, other, strict=True)]
    return TrainRow(
        shape=job["shape"],
        mode="compiled" if job["compiled"] else "eager",
        precision=job["precision"],
        ours_tokens_per_second=tokens / statistics.median(mine),
        transformers_tokens_per_second=tokens / statistics.median(other),
        speed_ratio=statistics.median(ratios),
        speed_ratio_low=min(ratios),
        speed_ratio_high=max(ratios),
        ours_peak_mib=ours.peak_bytes / 2**20,
        transformers_peak_mib=theirs.peak_bytes / 2**20,
        memory_ratio=ours.peak_bytes / theirs.peak_bytes,
        rounds=len(mine),
        threads=job["threads"],
        torch=torch.__version__,
        device=f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    )


def as_table(rows: Sequence[TrainRow]) -> str:
    """The rows for people: ratios first."""
    lines = [
        f"{'shape':<10}{'mode':<10}{'precision':<10}{'speed':>8}{'(spread)':>15}"
        f"{'ours tok/s':>12}{'theirs':>9}{'memory':>8}{'ours MiB':>10}{'theirs':>8}"
    ]
    for row in rows:
        spread = f"({row.speed_ratio_low:.2f}-{row.speed_ratio_high:.2f})"
        lines.append(
            f"{row.shape:<10}{row.mode:<10}{row.precision:<10}{row.speed_ratio:>7.2f}x{spread:>15}"
            f"{row.ours_tokens_per_second:>12,.0f}{row.transformers_tokens_per_second:>9,.0f}"
            f"{row.memory_ratio:>7.2f}x{row.ours_peak_mib:>10,.0f}{row.transformers_peak_mib:>8,.0f}"
        )
    lines.append("speed: ours / transformers, above 1 is faster; memory: below 1 is less")
    return "\n".join(lines)


def append_csv(rows: Sequence[Any], path: Path, commit: str) -> None:
    """Adds rows (dataclasses) to a CSV file, with a header when the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in rows:
            values = {"commit": commit, **asdict(row)}
            if is_new:
                writer.writerow(values)
                is_new = False
            writer.writerow(f"{v:.4g}" if isinstance(v, float) else v for v in values.values())


def check_columns(row: type[Any], path: Path) -> None:
    """Refuses a CSV file of other columns, before rows are measured that do not fit into it.

    Args:
        row: the dataclass of the rows.

    Raises:
        ValueError: the file is there and its header is another one.
    """
    if not path.exists():
        return
    expected = ["commit", *(field.name for field in fields(row))]
    with path.open(encoding="utf-8", newline="") as file:
        found = next(csv.reader(file), [])
    if found != expected:
        differing = sorted(set(found) ^ set(expected)) or ["their order"]
        raise ValueError(
            f"--csv {path} has other columns than these rows ({', '.join(differing)}): give a new "
            "file, or move this one away"
        )


def current_commit() -> str:
    """The commit that is measured, or `unknown` outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
