"""How contenders take turns, and what becomes of one that cannot run."""

from __future__ import annotations

import pytest
import torch

from glm_core.bench.kernels import contest
from glm_core.bench.kernels.contest import Contender, Contest, peer


class Log:
    """Calls that write down who was called, and a watch that counts them."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.names: list[str] = []
        self.seconds = seconds

    def call(self, name: str):
        return lambda: self.names.append(name)

    def watch(self, calls) -> float:
        for call in calls:
            call()
        return self.seconds * len(calls)


def make(log: Log, ours: list[str], theirs: list[str]) -> Contest:
    sides = [Contender(name, [log.call(name)]) for name in (*ours, *theirs)]
    return Contest("op", "part", "shape", "fp32", sides[: len(ours)], sides[len(ours) :])


def test_direction_alternates_when_rounds_follow():
    log = Log()
    made = make(log, ["a"], ["b", "c"])
    made.run(3, log.watch, budget_seconds=100)
    assert "".join(log.names) == "abc" + "abc" + "cba" + "abc"  # the first to warm up
    assert made.ours[0].seconds == [1.0, 1.0, 1.0] and made.load > 0


def test_three_rounds_are_left_when_time_is_up():
    log = Log()
    made = make(log, ["a"], ["b"])
    made.run(50, log.watch, budget_seconds=0)
    assert len(made.ours[0].seconds) == len(made.peers[0].seconds) == contest.FEWEST_ROUNDS


def test_each_copy_is_used_once_in_a_round_when_caches_must_not_help():
    log = Log(seconds=contest.ROUND_SECONDS / 50)
    copies = Contender("ours", [log.call(name) for name in "abc"], work=2e9)
    copies.warm_up(log.watch)
    log.names.clear()
    for _ in range(2):
        copies.round(log.watch)
    assert "".join(log.names) == "bca" * 2  # one call was the warm-up
    assert copies.rates == pytest.approx([2 / log.seconds] * 2)


def test_call_is_repeated_when_it_is_short():
    log = Log(seconds=contest.ROUND_SECONDS / 7.5)
    short = Contender("ours", [log.call("a")])
    short.warm_up(log.watch)
    log.names.clear()
    short.round(log.watch)
    assert len(log.names) == 8


def test_reason_is_noted_when_a_peer_cannot_run():
    def broken() -> list[contest.Call]:
        raise NotImplementedError("no backward on CPU\nand more lines")

    def fails_when_called() -> list[contest.Call]:
        return [lambda: torch.zeros(2) @ torch.zeros(3)]

    assert peer("flex", broken).reason == "NotImplementedError: no backward on CPU"
    assert peer("flex", fails_when_called).reason.startswith("RuntimeError: ")
    assert peer("flex", lambda: [lambda: 1]).reason == ""


def test_peer_without_result_stays_out_when_others_run():
    log = Log()
    made = make(log, ["a"], ["b"])
    made.peers.append(Contender("c", [], reason="not installed"))
    made.run(3, log.watch, budget_seconds=100)
    assert made.peers[1].seconds == [] and len(made.peers[0].seconds) == 3


def test_sides_become_graphs_when_all_can_be_recorded():
    log = Log()
    made = make(log, ["a"], ["b"])
    made.ours[0].calls = [log.call("a")] * 4
    made.peers.append(Contender("c", [], reason="not installed"))
    made.record(lambda calls: lambda: [call() for call in calls])
    assert made.in_graphs and (made.ours[0].per_call, made.peers[0].per_call) == (4, 1)
    made.run(3, log.watch, budget_seconds=100)
    assert made.ours[0].seconds == [0.25] * 3 and made.peers[0].seconds == [1.0] * 3
    assert made.peers[1].calls == []


def test_all_sides_stay_when_one_cannot_be_recorded(caplog):
    def capture(calls):
        if calls is made.peers[0].calls:
            raise RuntimeError("cannot wait while a graph is recorded")
        return lambda: None

    log = Log()
    made = make(log, ["a"], ["b"])
    before = made.ours[0].calls
    made.record(capture)
    assert not made.in_graphs and made.ours[0].calls is before
    assert "op shape is measured without CUDA graphs: cannot wait" in caplog.text
