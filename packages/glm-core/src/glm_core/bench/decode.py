"""`glm bench decode`: tokens per second of one text, against what people run today.

Every contender computes a model of the same shape with random weights, in a process of its own. All
of them write one share of tokens in each round, one after the other, and the bandwidth of reading
memory is measured in the same round, so that a busy machine is busy for all. Processes that do not
fit into memory together are started for their turn and ended after it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from glm_core.bench.llama import LLAMA_CPP, llama_command
from glm_core.bench.shapes import TRAIN_SHAPES
from glm_core.model.config import TransformerConfig
from glm_core.model.presets import preset
from glm_core.model.size import count_parameters

logger = logging.getLogger(__name__)

OURS, READ = "ours", "read"
PEERS = (LLAMA_CPP, "torch-int4", "transformers")
VARIANTS = {LLAMA_CPP: ("Q4_0", "Q4_K")}
"""What a peer is tried with; the fastest counts."""
_SHARE_OF_MEMORY = 0.85


@dataclass(frozen=True)
class DecodeRow:
    """One contender at one shape."""

    shape: str
    layers: int
    batch: int
    contender: str
    weights: str
    tokens_per_second: float
    """Median over the rounds, of all texts together; 0 where it could not run."""
    low: float
    high: float
    ratio: float
    """Median over the rounds of ours / this; above 1 we are faster."""
    best_ratio: float
    """Our best round / this one's: what a machine shows in the moments without other work."""
    read_gb_per_second: float
    """Median bandwidth of reading memory in the same rounds."""
    weight_gigabytes: float
    """Read for each token."""
    rounds: int
    tokens: int
    """Written in a round."""
    threads: int
    load: float
    """Mean number of running processes of the whole machine, ours included."""
    torch: str
    cpu: str
    reason: str
    """Why it could not run."""


class Contender:
    """A process that builds its model and then serves rounds."""

    def __init__(self, job: Mapping[str, Any], command: Sequence[str] | None = None) -> None:
        self.job = job
        self.command = command or [sys.executable, "-m", "glm_core.bench.decode_workers"]
        self.process: subprocess.Popen[str] | None = None
        self.about: dict[str, Any] = {}
        self.rates: list[float] = []
        self.reason = ""

    @property
    def name(self) -> str:
        """The contender, with its variant."""
        return " ".join(filter(None, (self.job["contender"], self.job.get("variant"))))

    def start(self) -> None:
        """Starts the process and waits until its model stands; notes why it does not."""
        if self.process is not None or self.reason:
            return
        self.process = subprocess.Popen(
            [*self.command, json.dumps(self.job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()

    def round(self) -> None:
        """Writes one share of tokens and notes the rate."""
        self.start()
        if self.process is None:
            return
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self._answer()
        if answer:
            self.rates.append(answer["rate"])

    def close(self) -> None:
        """Ends the process."""
        if self.process is None:
            return
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=120)
        self.process = None

    def _answer(self) -> dict[str, Any]:
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {}
        if not line:
            status = self.process.wait()
            answer = {"reason": f"stopped with status {status}; its message stands above"}
        if "reason" in answer:
            self.reason = answer["reason"]
            self.process.wait()
            self.process = None
            return {}
        return answer


def shape_config(shape: str, layers: int = 0) -> TransformerConfig:
    """The config of a published model or of a shape of `glm bench train`.

    Args:
        layers: 0 for as many as it has.

    Raises:
        ValueError: there is no such shape, or it has fewer layers.
    """
    config = TRAIN_SHAPES[shape].config() if shape in TRAIN_SHAPES else preset(shape)
    if layers > config.num_layers:
        raise ValueError(f"--layers is {layers}: {shape} has {config.num_layers}")
    return replace(config, num_layers=layers or config.num_layers)


def measure(
    shape: str,
    against: Sequence[str],
    layers: int = 0,
    batch: int = 1,
    rounds: int = 5,
    tokens: int = 16,
    threads: int = 2,
    bits: int = 4,
) -> list[DecodeRow]:
    """Lets all contenders write, by turns, and compares them round by round.

    Args:
        shape: see `shape_config`.
        against: peers, of `PEERS`.
        layers: 0 for as many as the shape has.
        batch: texts decoded together.
        tokens: written for each text in a round.
        bits: of our weights: 4 (groups of 32), 8 (rows), or 32 (fp32, not quantized).

    Raises:
        ValueError: there is no such shape or peer.
    """
    unknown = sorted(set(against) - set(PEERS))
    if unknown:
        raise ValueError(f"--against names {unknown[0]!r}: choose from {', '.join(PEERS)}")
    config = shape_config(shape, layers)
    job = {"shape": shape, "layers": config.num_layers, "batch": batch, "tokens": tokens}
    job |= {"threads": threads, "bits": bits}
    contenders = [_contender({**job, "contender": READ}), _contender({**job, "contender": OURS})]
    for peer in against:
        for variant in VARIANTS.get(peer, ("",)):
            contenders.append(_contender({**job, "contender": peer, "variant": variant}))
    load = _run_rounds(contenders, rounds, _fit_together(config, contenders, bits))
    return [_row(contender, contenders, load) for contender in contenders[1:]]


def ratios(rows: Sequence[DecodeRow]) -> dict[str, float]:
    """Ours / peer by the peer's name: against the fastest of its variants."""
    found: dict[str, float] = {}
    for row in rows:
        if row.contender != OURS and not row.reason:
            name = row.contender.partition(" ")[0]
            found[name] = min(found.get(name, row.ratio), row.ratio)
    return found


def _contender(job: Mapping[str, Any]) -> Contender:
    if job["contender"] != LLAMA_CPP:
        return Contender(job)
    command, reason = llama_command(shape_config(job["shape"], job["layers"]))
    contender = Contender(job, command)
    contender.reason = reason
    return contender


def _run_rounds(contenders: Sequence[Contender], rounds: int, together: bool) -> float:
    """Runs a round to warm up and `rounds` more; returns the mean load of the machine."""
    loads, started = [], time.monotonic()
    try:
        for number in range(rounds + 1):
            # the direction alternates, so that nobody always runs on a warmer machine
            for contender in contenders if number % 2 == 0 else contenders[::-1]:
                contender.round()
                if not together:
                    contender.close()
                loads.append(os.getloadavg()[0])
            done = number + 1
            left = (time.monotonic() - started) / done * (rounds + 1 - done)
            logger.info("round %d/%d, eta %.0fs", done, rounds + 1, left)
    finally:
        for contender in contenders:
            contender.close()
    for contender in contenders:
        contender.rates = contender.rates[1:]
    return statistics.fmean(loads)


def _fit_together(config: TransformerConfig, contenders: Sequence[Contender], bits: int) -> bool:
    parameters = count_parameters(config)
    per_weight = {READ: 0.0, OURS: bits / 8 * 1.2, "transformers": 2.0}
    need = sum(
        parameters * per_weight.get(c.job["contender"], 0.7) + 2e9
        for c in contenders
        if not c.reason
    )
    return need < _SHARE_OF_MEMORY * _available_bytes()


def _available_bytes() -> int:
    """Memory that new processes can have."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return 8 << 30
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _row(contender: Contender, all_of_them: Sequence[Contender], load: float) -> DecodeRow:
    read, ours = all_of_them[:2]
    job, rates = contender.job, contender.rates or [0.0]
    pairs = zip(ours.rates, contender.rates, strict=False)
    return DecodeRow(
        shape=job["shape"],
        layers=job["layers"],
        batch=job["batch"],
        contender=contender.name,
        weights=contender.about.get("weights", ""),
        tokens_per_second=statistics.median(rates),
        low=min(rates),
        high=max(rates),
        ratio=statistics.median([mine / other for mine, other in pairs] or [0.0]),
        best_ratio=max(ours.rates, default=0.0) / (max(rates) or float("inf")),
        read_gb_per_second=statistics.median(read.rates or [0.0]),
        weight_gigabytes=contender.about.get("bytes", 0) / 1e9,
        rounds=len(contender.rates),
        tokens=job["tokens"],
        threads=job["threads"],
        load=load,
        torch=torch.__version__,
        cpu=f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        reason=contender.reason.replace(",", ";"),
    )


def as_table(rows: Sequence[DecodeRow]) -> str:
    """The rows for people."""
    first = rows[0]
    texts = "one text" if first.batch == 1 else f"{first.batch} texts together"
    lines = [
        f"{first.shape}, {first.layers} layers, {texts}, {first.threads} threads, reading memory "
        f"at {first.read_gb_per_second:.1f} GB/s, load {first.load:.1f}"
    ]
    for row in rows:
        if row.reason:
            lines.append(f"{row.contender:<16}could not run: {row.reason}")
            continue
        lines.append(
            f"{row.contender:<16}{row.weights:<28}{row.tokens_per_second:>9.2f} tokens/s "
            f"({row.low:.2f}-{row.high:.2f}){row.ratio:>8.2f}x, "
            f"best rounds {row.best_ratio:.2f}x"
        )
    lines.append("the last columns: ours / this, above 1 we are faster")
    return "\n".join(lines)


def as_result(rows: Sequence[DecodeRow], csv: Path) -> dict[str, Any]:
    """The rows for programs."""
    return {"ratios": ratios(rows), "rows": [asdict(row) for row in rows], "csv": str(csv)}
