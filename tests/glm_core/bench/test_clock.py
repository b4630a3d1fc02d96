"""How time is taken."""

from __future__ import annotations

import time

import pytest
import torch

from glm_core.bench.clock import clock_name, in_one_graph, stopwatch

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_waiting_does_not_count_when_there_is_one_thread(threads):
    threads(1)
    assert clock_name(CPU) == "cpu time"
    assert stopwatch(CPU)([lambda: time.sleep(0.05)]) < 0.04


def test_waiting_counts_when_there_are_several_threads(threads):
    threads(2)
    assert clock_name(CPU) == "wall time"
    assert stopwatch(CPU)([lambda: time.sleep(0.01)] * 2) >= 0.02


def test_events_are_taken_when_it_is_a_gpu():
    assert clock_name(torch.device("cuda")) == "cuda events"


@pytest.mark.gpu
def test_graph_does_the_same_when_it_is_replayed():
    device = torch.device("cuda")
    total = torch.zeros(4, device=device)
    replay = in_one_graph([lambda: total.add_(1)] * 3)
    total.zero_()
    assert stopwatch(device)([replay, replay]) > 0
    assert total.tolist() == [6.0] * 4
