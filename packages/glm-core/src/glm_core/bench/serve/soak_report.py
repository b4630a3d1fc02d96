"""What a soak brought, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from glm_core.bench.serve.soak import Report
from glm_core.bench.serve.soak_server import Held, growth

_MOST_SHOWN = 20


def as_table(report: Report) -> str:
    """The report for people."""
    rate = report.requests / max(report.seconds, 1e-9)
    lines = [
        f"{report.requests:,} requests in {report.seconds:.0f} s ({rate:.1f} per second): "
        + ", ".join(f"{count:,} {how}" for how, count in report.counts.most_common()),
        "of the engine: "
        + ", ".join(f"{name} {count:,}" for name, count in report.counters.items()),
        f"{'held when idle':<16}{'warm':>10}{'half way':>10}{'end':>10}",
    ]
    for one in fields(Held):
        values = "".join(f"{getattr(held, one.name):>10,.0f}" for held in report.held)
        lines.append(f"{one.name:<16}{values}")
    wrong = [*report.problems, *report.faults]
    lines += [f"WRONG: {text}" for text in wrong[:_MOST_SHOWN]]
    if len(wrong) > _MOST_SHOWN:
        lines.append(f"... and {len(wrong) - _MOST_SHOWN} more")
    lines.append("nothing is wrong" if report.is_good else f"{len(wrong)} things are wrong")
    return "\n".join(lines)


def as_result(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return asdict(report) | {
        "is_good": report.is_good,
        "growth": growth(report.held[0], report.held[-1]),
    }
