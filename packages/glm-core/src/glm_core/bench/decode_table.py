"""The rows of `glm bench decode` for people and for programs, beside what is aimed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glm_core.bench.decode import DecodeRow, ratios

GOALS: dict[tuple[str, int, bool], dict[str, float]] = {
    ("chatglm3-6b", 1, False): {
        "llama.cpp": 1.9,
        "chatglm.cpp": 2.1,
        "torch-int4": 1.5,
        "transformers": 4.0,
    },
    ("chatglm3-6b", 8, False): {"llama.cpp": 2.0},
    ("chatglm3-6b", 1, True): {"llama.cpp": 2.5},
    ("10m", 1, False): {"transformers": 3.0},
}
"""Least ratio to each peer, by shape, texts together, and whether a prompt is read."""


def goals(rows: Sequence[DecodeRow]) -> dict[str, float]:
    """Least ratio by the peer's name, as far as one is set for this work."""
    first = rows[0]
    return GOALS.get((first.shape, first.batch, first.prompt > 0), {})


def as_table(rows: Sequence[DecodeRow]) -> str:
    """The rows for people."""
    first = rows[0]
    texts = "one text" if first.batch == 1 else f"{first.batch} texts together"
    work = f"reading prompts of {first.prompt} tokens" if first.prompt else "writing"
    lines = [
        f"{first.shape}, {first.layers} layers, {work}, {texts}, {first.threads} threads; memory "
        f"is read at {first.read_gb_per_second:.1f} GB/s, load {first.load:.1f}",
        first.cpu,
    ]
    for row in rows:
        if row.reason:
            lines.append(f"{row.contender:<18}could not run: {row.reason}")
            continue
        lines.append(
            f"{row.contender:<18}{row.weights + ', ' + row.activations:<48}"
            f"{row.tokens_per_second:>9.2f} tokens/s ({row.low:.2f}-{row.high:.2f})"
            f"{row.ratio:>8.2f}x, best rounds {row.best_ratio:.2f}x"
            + (f", ours with 8 bits {row.ratio_8_bit:.2f}x" if row.ratio_8_bit else "")
        )
    lines.append("the last columns: ours / this, above 1 we are faster")
    return "\n".join([*lines, *_against_goals(rows)])


def _against_goals(rows: Sequence[DecodeRow]) -> list[str]:
    """A line for each peer: the ratio to the fastest of its variants, and the goal."""
    found, eight_bit, aims = ratios(rows), ratios(rows, eight_bit=True), goals(rows)
    lines = []
    for peer, ratio in found.items():
        line = f"ours / {peer}: {ratio:.2f}"
        if eight_bit[peer]:
            line += f", with 8-bit activations {eight_bit[peer]:.2f}"
        if peer in aims:
            line += f"; goal {aims[peer]:.1f}, {_verdict(ratio, aims[peer])}"
            if eight_bit[peer]:
                line += f", with 8-bit activations {_verdict(eight_bit[peer], aims[peer])}"
        lines.append(line)
    return lines


def _verdict(ratio: float, goal: float) -> str:
    return "met" if ratio >= goal else f"missed by {1 - ratio / goal:.0%}"


def as_result(rows: Sequence[DecodeRow], commit: str, csv: Path) -> dict[str, Any]:
    """The rows for programs."""
    result: dict[str, Any] = {"ratios": ratios(rows)}
    if any(row.ratio_8_bit for row in rows):
        result["ratios_8_bit_activations"] = ratios(rows, eight_bit=True)
    return result | {
        "goals": goals(rows),
        "reasons": {row.contender: row.reason for row in rows if row.reason},
        "rows": [{"commit": commit, **asdict(row)} for row in rows],
        "csv": str(csv),
    }
