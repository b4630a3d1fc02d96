"""The typing session, replayed by turns: place after place, each server is asked after every
keystroke, and the order of the servers changes from place to place."""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codegeex.bench.bodies import infill, segments
from codegeex.bench.client import Connection, Reply
from codegeex.bench.contenders import OURS, Weights, llama_process, our_server, weights_of
from codegeex.bench.edits import Edit
from codegeex.bench.leaving import Left, leave
from codegeex.bench.plan import Plan
from codegeex.bench.samples import Sample, sample_of
from glm_core.bench.ggml_peers import LLAMA_CPP
from glm_core.bench.serve.servers import ServerProcess

logger = logging.getLogger(__name__)

PEERS = (LLAMA_CPP,)
WARM_UP = 8
"""Keystrokes before anything is measured."""


@dataclass(frozen=True)
class Way:
    """How an editor's plugin asks."""

    name: str
    path: str
    body: Callable[[Edit, int], bytes]
    told: Callable[[Reply], dict[str, Any]]
    """Takes the numbers out of an answer."""
    is_ours: bool = False
    """Whether no other server has it."""


WAYS = (
    Way("infill", "/infill", infill, Reply.json),
    Way(
        "infill, streamed",
        "/infill",
        lambda edit, tokens: infill(edit, tokens, stream=True),
        lambda reply: reply.events()[-1],
    ),
    Way("segments", "/v1/completions", lambda edit, _: segments(edit), Reply.json, is_ours=True),
)


@dataclass
class Measured:
    """What came of one server, asked in one way."""

    contender: str
    way: Way
    samples: list[Sample] = field(default_factory=list)


@dataclass
class Measurements:
    """Everything that was measured."""

    plan: Plan
    weights: Weights
    measured: list[Measured]
    reasons: dict[str, str]
    """Why contenders could not run, by name."""
    about: dict[str, dict[str, Any]]
    left: list[Left] = field(default_factory=list)
    """What became of requests that nobody waited for; ours."""
    loads: list[float] = field(default_factory=list)
    """Running processes of the whole machine, now and then."""

    def of(self, contender: str, way: str) -> list[Sample]:
        """Returns the samples of one contender."""
        found = (m for m in self.measured if (m.contender, m.way.name) == (contender, way))
        return next(found).samples


def measure(plan: Plan, against: Sequence[str], set_up: bool = False) -> Measurements:
    """Starts the servers, types, and compares.

    Args:
        against: peers, of `PEERS`.
        set_up: install llama.cpp and build its server where they are missing.

    Raises:
        ValueError: there is no such peer, the file cannot be typed, or our server cannot run.
    """
    unknown = sorted(set(against) - set(PEERS))
    if unknown:
        raise ValueError(f"--against names {unknown[0]!r}: choose from {', '.join(PEERS)}")
    plan.session(0)  # before anything is started
    weights = weights_of(plan.model)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="codegeex-bench-")))
        servers = [our_server(plan, folder)]
        if LLAMA_CPP in against:
            servers.append(llama_process(plan, weights, folder, set_up))
        return replay(plan, weights, servers, stack)


def replay(
    plan: Plan, weights: Weights, servers: Sequence[ServerProcess], stack: ExitStack
) -> Measurements:
    """Types at servers, ours first, which the stack ends.

    Raises:
        ValueError: ours cannot run.
    """
    for server in servers:
        stack.callback(server.close)
        server.start()
        if server.reason:
            logger.warning("without %s: %s", server.name, server.reason)
    if servers[0].reason:
        raise ValueError(f"nothing can be measured: {servers[0].reason}")
    found = Measurements(
        plan,
        weights,
        [
            Measured(s.name, way)
            for s in servers
            for way in WAYS
            if s.name == OURS or not way.is_ours
        ],
        {server.name: server.reason for server in servers if server.reason},
        {server.name: server.about for server in servers},
    )
    running = {
        server.name: stack.enter_context(Connection(server.url))
        for server in servers
        if not server.reason
    }
    _Replay(found, running).run()
    found.left = leave(servers[0].url, servers[0].about["models"][0])
    return found


class _Replay:
    """The rounds.

    Args:
        found: is filled.
        running: a connection to each server that runs.
    """

    def __init__(self, found: Measurements, running: dict[str, Connection]) -> None:
        self._found, self._running = found, running

    def run(self) -> None:
        plan, start = self._found.plan, time.monotonic()
        self._type(plan.session(0)[:WARM_UP], 0, self._found.measured)
        for measured in self._found.measured:
            measured.samples.clear()
        for number in range(1, plan.rounds + 1):
            for index, way in enumerate(WAYS):  # at places of its own, not read before
                asked = [one for one in self._found.measured if one.way is way]
                session = plan.session(number * len(WAYS) + index)
                for place, edits in enumerate(places(session)):
                    self._type(edits, number, asked[:: -1 if place % 2 else 1])
                self._found.loads.append(os.getloadavg()[0])
            left = (time.monotonic() - start) / number * (plan.rounds - number)
            logger.info("round %d/%d: %s, eta %.0fs", number, plan.rounds, self._said(), left)

    def _type(self, edits: Sequence[Edit], number: int, asked: Sequence[Measured]) -> None:
        tokens = self._found.plan.new_tokens
        for measured in asked:
            connection = self._running.get(measured.contender)
            if connection is None:
                continue
            way = measured.way
            for edit in edits:
                reply = connection.post(way.path, way.body(edit, tokens))
                measured.samples.append(sample_of(reply, way.told(reply), number, edit.keystroke))

    def _said(self) -> str:
        medians = (
            f"{one.contender} {1e3 * statistics.median(s.total_s for s in one.samples):.1f} ms"
            for one in self._found.measured
            if one.way is WAYS[0] and one.samples
        )
        return ", ".join(medians)


def places(edits: Sequence[Edit]) -> Iterator[list[Edit]]:
    """Yields the edits of one place after the other."""
    place: list[Edit] = []
    for edit in edits:
        if edit.keystroke == 0 and place:
            yield place
            place = []
        place.append(edit)
    yield place
