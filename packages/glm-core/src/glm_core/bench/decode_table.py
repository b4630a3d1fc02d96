"""The rows of `glm bench decode` for people and for programs, beside what is aimed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glm_core.bench.decode import GPU_PEERS, DecodeRow, ratios

GOALS: dict[tuple[str, int, bool], dict[str, float]] = {
    ("chatglm3-6b", 1, False): {
        "llama.cpp": 1.9,
        "chatglm.cpp": 2.1,
        "torch-int4": 1.5,
        "transformers": 4.0,
        "compiled-int4": 1.2,
    },
    ("chatglm3-6b", 8, False): {"llama.cpp": 2.0},
    ("chatglm3-6b", 1, True): {"llama.cpp": 2.5},
    ("10m", 1, False): {"transformers": 3.0},
}
"""Least ratio to each peer, by shape, texts together, and whether a prompt is read."""
GPU_SHARE = 0.8
"""Least share of its memory's bandwidth at which a GPU reads our weights."""


def goals(rows: Sequence[DecodeRow]) -> dict[str, float]:
    """Least ratio by the peer's name, as far as one is set for this work."""
    first = rows[0]
    aims = GOALS.get((first.shape, first.batch, first.prompt > 0), {})
    measured = {row.contender.partition(" ")[0] for row in rows}
    return {peer: aim for peer, aim in aims.items() if peer in measured}


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
    return "\n".join([*lines, *_against_goals(rows), *_against_bandwidth(rows)])


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


def bandwidth_share(row: DecodeRow) -> float:
    """What a row reads of its weights in a second, of what the memory gives; 0 if not measured."""
    columns = row.tokens_per_second / row.batch
    return columns * row.weight_gigabytes / (row.read_gb_per_second or float("inf"))


def _against_bandwidth(rows: Sequence[DecodeRow]) -> list[str]:
    share = bandwidth_share(rows[0])
    if rows[0].prompt or not share:
        return []
    line = f"ours reads its weights at {share:.0%} of the bandwidth"
    if any(row.contender in GPU_PEERS for row in rows):
        line += f"; goal {GPU_SHARE:.0%}, {_verdict(share, GPU_SHARE)}"
    return [line]


def _verdict(ratio: float, goal: float) -> str:
    return "met" if ratio >= goal else f"missed by {1 - ratio / goal:.0%}"


def as_result(rows: Sequence[DecodeRow], commit: str, csv: Path) -> dict[str, Any]:
    """The rows for programs."""
    result: dict[str, Any] = {"ratios": ratios(rows)}
    if any(row.ratio_8_bit for row in rows):
        result["ratios_8_bit_activations"] = ratios(rows, eight_bit=True)
    if not rows[0].prompt:
        result["bandwidth_share"] = bandwidth_share(rows[0])
    return result | {
        "goals": goals(rows),
        "reasons": {row.contender: row.reason for row in rows if row.reason},
        "rows": [{"commit": commit, **asdict(row)} for row in rows],
        "csv": str(csv),
    }
