"""How time is taken on a device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

Call = Callable[[], object]
Watch = Callable[[Sequence[Call]], float]
"""Runs calls one after the other; returns the seconds that they took together."""


def stopwatch(device: torch.device) -> Watch:
    """The clock of a device; see `clock_name`."""
    if device.type == "cuda":
        return _cuda_seconds
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def seconds(calls: Sequence[Call]) -> float:
        start = clock()
        for call in calls:
            call()
        return clock() - start

    return seconds


def clock_name(device: torch.device) -> str:
    """CPU time does not count the wait for others, but adds up over threads, waiting ones too: it
    serves for one thread only."""
    if device.type == "cuda":
        return "cuda events"
    return "cpu time" if torch.get_num_threads() == 1 else "wall time"


def _cuda_seconds(calls: Sequence[Call]) -> float:
    event = partial(torch.cuda.Event, enable_timing=True)
    start, end = event(), event()
    torch.cuda.synchronize()
    start.record()
    for call in calls:
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def in_one_graph(calls: Sequence[Call]) -> Call:
    """Records calls as one CUDA graph: what is measured then is the GPU, not Python's launching.

    Raises:
        RuntimeError: something in them cannot be recorded.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles kernels, and lets libraries take their memory
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for call in calls:
            call()
    replay: Call = graph.replay
    return replay
