"""Our server against llama.cpp's and against answering one request after the other.

Everything that is compared runs by turns in one run: in every round each server gets the same
requests at each number of streams, and those who answer one by one a few of the same kind.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from glm_core.bench.contender import Contender
from glm_core.bench.decode import shape_config
from glm_core.bench.ggml_peers import LLAMA_CPP
from glm_core.bench.machine import processor
from glm_core.bench.serve.contenders import Plan, job_of, llama_process, one_by_one
from glm_core.bench.serve.sequential import SEQUENTIAL, TRANSFORMERS
from glm_core.bench.serve.servers import ServerProcess, our_server
from glm_core.bench.serve.stream_client import Load, run_load
from glm_core.bench.serve.work import bodies, prompts

logger = logging.getLogger(__name__)

OURS = "ours"
PEERS = (LLAMA_CPP, TRANSFORMERS)


@dataclass(frozen=True)
class ServeRow:
    """One contender at one number of streams; rates are medians over the rounds."""

    shape: str
    layers: int
    contender: str
    weights: str
    streams: int
    prompt: int
    tokens: int
    tokens_per_second: float
    """New tokens, of all streams together, with the time of reading prompts; 0: did not run."""
    low: float
    high: float
    ratio: float
    """Median over the rounds of ours / this; above 1 we are faster."""
    first_token_p50_ms: float
    """From the request to the first event, over all rounds; 0 where nothing is streamed."""
    first_token_p99_ms: float
    inter_token_p50_ms: float
    """Between two arrivals of one stream."""
    inter_token_p99_ms: float
    requests: int
    """In a round."""
    rounds: int
    threads: int
    load: float
    """Mean number of running processes of the whole machine, ours included."""
    version: str
    torch: str
    cpu: str
    reason: str
    """Why it could not run."""


@dataclass
class Measured:
    """What the rounds brought for one contender at one number of streams."""

    contender: str
    streams: int
    about: dict[str, Any] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    reason: str = ""

    def add(self, load: Load) -> None:
        """Takes the result of a round."""
        self.rates.append(load.tokens_per_second)
        for stream in load.streams:
            self.first_token_s.append(stream.first_token_s)
            self.gaps_s += stream.gaps_s


def measure(plan: Plan, against: Sequence[str], set_up: bool = False) -> list[ServeRow]:
    """Lets all contenders answer, by turns, and compares them round by round.

    Args:
        against: peers, of `PEERS`; answering one by one with our own model is always measured.
        set_up: install llama.cpp and build its server where they are missing.

    Raises:
        ValueError: there is no such peer.
    """
    unknown = sorted(set(against) - set(PEERS))
    if unknown:
        raise ValueError(f"--against names {unknown[0]!r}: choose from {', '.join(PEERS)}")
    servers = [our_server(job_of(plan))]
    if LLAMA_CPP in against:
        servers.append(llama_process(plan, set_up))
    names = [SEQUENTIAL, *([TRANSFORMERS] if TRANSFORMERS in against else [])]
    return Measurement(plan, servers, [one_by_one(plan, name) for name in names]).run()


class Measurement:
    """The rounds.

    Args:
        plan: what is asked.
        servers: ours first.
        one_by_one: contenders without streams.
    """

    def __init__(
        self, plan: Plan, servers: Sequence[ServerProcess], one_by_one: Sequence[Contender]
    ) -> None:
        self._plan, self._servers, self._one_by_one = plan, servers, one_by_one
        self._vocab_size = shape_config(plan.shape, plan.layers).vocab_size
        names = [*(one.name for one in servers), *(one.name for one in one_by_one)]
        self._measured = {
            (name, streams): Measured(name, streams) for name in names for streams in plan.streams
        }
        self._loads: list[float] = []

    def run(self) -> list[ServeRow]:
        """Runs a small round to warm up and all others; returns a row for each measurement."""
        with ExitStack() as stack:
            for server in self._servers:
                stack.callback(server.close)
                server.start()
                if server.reason:
                    logger.warning("without %s: %s", server.name, server.reason)
            for contender in self._one_by_one:
                stack.callback(contender.close)
                contender.round()
                contender.rates.clear()
            self._serve(max(self._plan.streams), 0, is_warm_up=True)
            start = time.monotonic()
            for number in range(1, self._plan.rounds + 1):
                self._round(number)
                left = (time.monotonic() - start) / number * (self._plan.rounds - number)
                logger.info("round %d/%d, eta %.0fs", number, self._plan.rounds, left)
        return [self._row(measured) for measured in self._measured.values()]

    def _round(self, number: int) -> None:
        for contender in self._one_by_one:
            contender.round()
            for streams in self._plan.streams:
                measured = self._measured[contender.name, streams]
                measured.rates = list(contender.rates)
                measured.about, measured.reason = contender.about, contender.reason
        for streams in self._plan.streams:
            self._serve(streams, number)

    def _serve(self, streams: int, number: int, is_warm_up: bool = False) -> None:
        """Gives every server the same requests; the direction alternates."""
        plan = self._plan
        count = streams if is_warm_up else streams * plan.per_stream
        tokens = 2 if is_warm_up else plan.tokens
        # no prompt comes twice: that one who remembers prompts gains nothing
        seed = number * 1000 + streams
        given = prompts(count, plan.prompt, self._vocab_size, seed)
        for server in self._servers if number % 2 else self._servers[::-1]:
            measured = self._measured[server.name, streams]
            measured.about, measured.reason = server.about, server.reason
            if not server.reason:
                asked = bodies(given, tokens, server.ignores_end(tokens))
                load = run_load(server.url, asked, streams)
                if not is_warm_up:
                    measured.add(load)
                rate = load.tokens_per_second
                logger.info("%s, %d streams: %.1f tokens/s", server.name, streams, rate)
            self._loads.append(os.getloadavg()[0])

    def _row(self, measured: Measured) -> ServeRow:
        plan, rates = self._plan, measured.rates or [0.0]
        ours = self._measured[OURS, measured.streams].rates
        pairs = zip(ours, measured.rates, strict=False)
        return ServeRow(
            shape=plan.shape,
            layers=shape_config(plan.shape, plan.layers).num_layers,
            contender=measured.contender,
            weights=measured.about.get("weights", ""),
            streams=measured.streams,
            prompt=plan.prompt,
            tokens=plan.tokens,
            tokens_per_second=statistics.median(rates),
            low=min(rates),
            high=max(rates),
            ratio=statistics.median([mine / theirs for mine, theirs in pairs] or [0.0]),
            first_token_p50_ms=1e3 * percentile(measured.first_token_s, 0.5),
            first_token_p99_ms=1e3 * percentile(measured.first_token_s, 0.99),
            inter_token_p50_ms=1e3 * percentile(measured.gaps_s, 0.5),
            inter_token_p99_ms=1e3 * percentile(measured.gaps_s, 0.99),
            requests=measured.streams * plan.per_stream,
            rounds=len(measured.rates),
            threads=plan.threads,
            load=statistics.fmean(self._loads or [0.0]),
            version=measured.about.get("version", ""),
            torch=torch.__version__,
            cpu=processor(),
            reason=measured.reason,
        )


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so large a share of all does not exceed; 0 when there is none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
