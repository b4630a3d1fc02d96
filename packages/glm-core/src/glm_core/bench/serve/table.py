"""The rows of `glm bench serve` for people and for programs, beside what is aimed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glm_core.bench.ggml_peers import LLAMA_CPP
from glm_core.bench.serve.measure import OURS, ServeRow
from glm_core.bench.serve.sequential import SEQUENTIAL

GOALS: dict[tuple[str, int], float] = {(LLAMA_CPP, 8): 1.1, (SEQUENTIAL, 32): 3.0}
"""Least ratio of our throughput to a contender's, by contender and number of streams."""


def as_table(rows: Sequence[ServeRow]) -> str:
    """The rows for people."""
    first = rows[0]
    lines = [
        f"{first.shape}, {first.layers} layers, prompts of about {first.prompt} tokens, "
        f"{first.tokens} new ones, {first.threads} threads, load {first.load:.1f}",
        first.cpu,
        f"{'contender':<14}{'streams':>8}{'tokens/s':>10}{'(low-high)':>18}{'ours/this':>11}"
        f"{'first token p50, p99':>24}{'next token p50, p99':>24}",
    ]
    told = set()
    for row in rows:
        if row.reason:
            if row.contender not in told:
                lines.append(f"{row.contender:<14}could not run: {row.reason}")
            told.add(row.contender)
            continue
        spread = f"({row.low:.1f}-{row.high:.1f})"
        lines.append(
            f"{row.contender:<14}{row.streams:>8}{row.tokens_per_second:>10.1f}{spread:>18}"
            f"{row.ratio:>10.2f}x" + _latencies(row)
        )
    versions = dict.fromkeys(f"{row.contender}: {row.version}" for row in rows if row.version)
    return "\n".join([*lines, *versions, *_against_goals(rows)])


def as_result(rows: Sequence[ServeRow], commit: str, csv: Path) -> dict[str, Any]:
    """The rows for programs."""
    return {
        "ratios": ratios(rows),
        "goals": [
            {"contender": name, "streams": streams, "goal": goal, "ratio": ratio}
            for (name, streams), (goal, ratio) in goals(rows).items()
        ],
        "reasons": {row.contender: row.reason for row in rows if row.reason},
        "rows": [{"commit": commit, **asdict(row)} for row in rows],
        "csv": str(csv),
    }


def ratios(rows: Sequence[ServeRow]) -> dict[str, dict[str, float]]:
    """Ours / contender by its name and the number of streams."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.contender != OURS and not row.reason:
            found.setdefault(row.contender, {})[str(row.streams)] = row.ratio
    return found


def goals(rows: Sequence[ServeRow]) -> dict[tuple[str, int], tuple[float, float]]:
    """Goal and ratio by contender and number of streams, as far as they were measured."""
    return {
        (row.contender, row.streams): (GOALS[row.contender, row.streams], row.ratio)
        for row in rows
        if (row.contender, row.streams) in GOALS and not row.reason
    }


def _latencies(row: ServeRow) -> str:
    if not row.first_token_p50_ms:
        return ""
    first = f"{row.first_token_p50_ms:,.0f}, {row.first_token_p99_ms:,.0f} ms"
    following = f"{row.inter_token_p50_ms:,.1f}, {row.inter_token_p99_ms:,.1f} ms"
    return f"{first:>24}{following:>24}"


def _against_goals(rows: Sequence[ServeRow]) -> list[str]:
    lines = []
    for (name, streams), (goal, ratio) in goals(rows).items():
        verdict = "met" if ratio >= goal else f"missed by {1 - ratio / goal:.0%}"
        lines.append(f"ours / {name} at {streams} streams: {ratio:.2f}; goal {goal:.1f}, {verdict}")
    return lines
