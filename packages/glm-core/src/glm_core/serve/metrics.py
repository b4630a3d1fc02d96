"""What Prometheus reads at /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from glm_core.infer.engine import EngineStats

CONTENT_TYPE = CONTENT_TYPE_LATEST
ReadStats = Callable[[], Mapping[str, EngineStats]]
"""Gives the numbers of every model's engine, by the model's name."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_METHODS = ("GET", "HEAD", "OPTIONS", "POST")
_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Metrics:
    """Counters and histograms of one server.

    Args:
        read_stats: asked for at every scrape.
    """

    def __init__(self, read_stats: ReadStats) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "glm_http_requests",
            "Requests; status 0: the client left before there was an answer",
            ["path", "method", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "glm_http_request_seconds",
            "From a request's headers to the end of its answer",
            ["path"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._tasks = Gauge("glm_http_tasks", "Tasks of the server's loop now", registry=registry)
        registry.register(_EngineCollector(read_stats))

    def count(self, path: str, method: str, status: int, seconds: float) -> None:
        """Counts a request that has ended."""
        method = method if method in _METHODS else "other"
        self._requests.labels(path, method, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Returns everything in Prometheus' text format; called in the server's loop."""
        self._tasks.set(len(asyncio.all_tasks()))
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """The engines' own numbers, read when they are asked for."""

    def __init__(self, read_stats: ReadStats) -> None:
        self._read_stats = read_stats

    def collect(self) -> Iterator[_Family]:
        stats = self._read_stats()
        first = next(iter(stats.values()))
        for field in fields(first):
            if field.name not in ("counters", "histograms"):
                yield self._gauge(field.name, stats)
        for name in first.counters:
            counter = CounterMetricFamily(
                f"glm_engine_{name}", f"Engine: {_words(name)} since the start", labels=["model"]
            )
            for model, one in stats.items():
                counter.add_metric([model], one.counters[name])
            yield counter
        for name in first.histograms:
            yield self._histogram(name, stats)

    def _gauge(self, name: str, stats: Mapping[str, EngineStats]) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(
            f"glm_engine_{name}", f"Engine: {_words(name)} now", labels=["model"]
        )
        for model, one in stats.items():
            gauge.add_metric([model], getattr(one, name))
        return gauge

    def _histogram(self, name: str, stats: Mapping[str, EngineStats]) -> HistogramMetricFamily:
        unit = name.removesuffix("_s")
        family = HistogramMetricFamily(
            f"glm_engine_{unit}_seconds", f"Engine: {_words(unit)} in seconds", labels=["model"]
        )
        for model, one in stats.items():
            values = one.histograms[name]
            buckets = [
                ("+Inf" if bound == float("inf") else str(bound), float(count))
                for bound, count in values.buckets
            ]
            family.add_metric([model], buckets, values.sum)
        return family


def _words(name: str) -> str:
    return name.replace("_", " ")
