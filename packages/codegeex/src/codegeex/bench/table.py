"""What was measured, for people and for programs, beside what is aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from codegeex.bench.contenders import OURS
from codegeex.bench.measure import WAYS, Measured, Measurements
from codegeex.bench.samples import Sample, mean, median, milliseconds
from glm_core.bench.ggml_peers import LLAMA_CPP
from glm_core.bench.machine import processor

GOAL_P50_MS, GOAL_P95_MS = 60.0, 150.0
GOAL_REUSED = 0.95
GOAL_RATIO = 1.1
GOAL_LEFT = 1
"""Tokens written for a request after its client has left."""


@dataclass(frozen=True)
class EditorRow:
    """One contender, asked in one way."""

    model: str
    contender: str
    asked: str
    weights: str
    edits: int
    rounds: int
    new_tokens: int
    p50_ms: float
    """Of the whole round trip, over all keystrokes of all rounds; so are the next ones."""
    p90_ms: float
    p95_ms: float
    p99_ms: float
    first_p50_ms: float
    """Until the first of the answer has come."""
    jump_p50_ms: float
    """At the first keystroke after the cursor has jumped."""
    second_p50_ms: float
    """At the second one."""
    prompt: float
    """Median number of tokens."""
    reused: float
    """Median share of the prompt that had been read before."""
    second_reused: float
    """At the second keystroke after a jump."""
    written: float
    """Mean number of tokens of an answer."""
    ratio: float
    """This / ours at p50, the median of the rounds; above 1 we are faster."""
    ratio_low: float
    ratio_high: float
    fair_ratio: float
    """Over the keystrokes whose answer has at least as many tokens of ours."""
    threads: int
    load: float
    """Mean number of running processes of the whole machine, ours included."""
    file: str
    seed: int
    version: str
    torch: str
    cpu: str
    reason: str
    """Why it could not run."""


def rows_of(found: Measurements) -> list[EditorRow]:
    """Returns a row for each contender and way."""
    return [_row(found, measured) for measured in found.measured]


def _row(found: Measurements, measured: Measured) -> EditorRow:
    plan, samples = found.plan, measured.samples
    ours = found.of(OURS, measured.way.name)
    ratios = _ratios(ours, samples)
    return EditorRow(
        model=plan.model,
        contender=measured.contender,
        asked=measured.way.name,
        weights=found.about[measured.contender].get("weights", found.weights.about),
        edits=plan.edits,
        rounds=plan.rounds,
        new_tokens=plan.new_tokens,
        p50_ms=milliseconds(samples, 0.5),
        p90_ms=milliseconds(samples, 0.9),
        p95_ms=milliseconds(samples, 0.95),
        p99_ms=milliseconds(samples, 0.99),
        first_p50_ms=milliseconds(samples, 0.5, "first_s"),
        jump_p50_ms=milliseconds(_at(samples, 0), 0.5),
        second_p50_ms=milliseconds(_at(samples, 1), 0.5),
        prompt=median(samples, lambda one: one.prompt),
        reused=median(samples, lambda one: one.reused),
        second_reused=median(_at(samples, 1), lambda one: one.reused),
        written=mean(samples, lambda one: one.written),
        ratio=statistics.median(ratios or [0.0]),
        ratio_low=min(ratios, default=0.0),
        ratio_high=max(ratios, default=0.0),
        fair_ratio=_fair_ratio(ours, samples),
        threads=plan.threads,
        load=statistics.fmean(found.loads or [0.0]),
        file=plan.typed_file.name,
        seed=plan.seed,
        version=found.about[measured.contender].get("version", ""),
        torch=torch.__version__,
        cpu=processor(),
        reason=found.reasons.get(measured.contender, ""),
    )


def _at(samples: Sequence[Sample], keystroke: int) -> list[Sample]:
    return [sample for sample in samples if sample.keystroke == keystroke]


def _ratios(ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[float]:
    """Theirs / ours at p50, round by round."""
    rounds = dict.fromkeys(sample.round for sample in theirs)
    of_round = [
        [[one for one in samples if one.round == number] for samples in (ours, theirs)]
        for number in rounds
    ]
    return [milliseconds(b, 0.5) / milliseconds(a, 0.5) for a, b in of_round]


def _fair_ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> float:
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a.written >= b.written]
    mine, other = (milliseconds([pair[i] for pair in pairs], 0.5) for i in (0, 1))
    return other / mine if mine else 0.0


def goals(found: Measurements, rows: Sequence[EditorRow]) -> Iterator[dict[str, Any]]:
    """Yields what is aimed at, and what was reached."""
    ours = rows[0]
    yield _goal("p50", "ms", ours.p50_ms, GOAL_P50_MS)
    yield _goal("p95", "ms", ours.p95_ms, GOAL_P95_MS)
    yield _goal("reused at the second keystroke", "", ours.second_reused, GOAL_REUSED, least=True)
    if found.left:
        worst = max(left.tokens for left in found.left)
        yield _goal("tokens written after a client left", "", worst, GOAL_LEFT)
    for row in rows:
        if row.contender == LLAMA_CPP and row.asked == WAYS[0].name and not row.reason:
            yield _goal(f"{row.contender} / ours at p50", "", row.ratio, GOAL_RATIO, least=True)


def _goal(what: str, unit: str, value: float, goal: float, least: bool = False) -> dict[str, Any]:
    is_met = value >= goal if least else value <= goal
    return {"what": what, "unit": unit, "value": value, "goal": goal, "is_met": is_met}


def as_table(found: Measurements, rows: Sequence[EditorRow]) -> str:
    """The rows for people."""
    first = rows[0]
    lines = [
        f"{first.model}, {first.edits} edits of {first.file}, {first.rounds} rounds, one line of "
        f"up to {first.new_tokens} tokens, {first.threads} threads, load {first.load:.1f}",
        first.cpu,
        f"{'contender':<11}{'asked':<17}{'weights':<20}{'p50':>8}{'p90':>8}{'p95':>8}{'p99':>8}"
        f"{'first':>8}{'jump':>8}{'second':>8} ms{'prompt':>8}{'reused':>8}{'written':>9}"
        f"{'this/ours (low-high)':>23}",
    ]
    told: set[str] = set()
    for row in rows:
        if row.reason:
            if row.contender not in told:
                lines.append(f"{row.contender:<11}could not run: {row.reason}")
            told.add(row.contender)
            continue
        times = (
            *(row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms),
            *(row.first_p50_ms, row.jump_p50_ms, row.second_p50_ms),
        )
        lines.append(
            f"{row.contender:<11}{row.asked:<17}{row.weights:<20}"
            + "".join(f"{time:>8.1f}" for time in times)
            + f"   {row.prompt:>8.0f}{row.reused:>8.1%}{row.written:>9.1f}"
            + f"{row.ratio:>9.2f}x ({row.ratio_low:.2f}-{row.ratio_high:.2f})"
            + (f", fair {row.fair_ratio:.2f}x" if row.contender != OURS else "")
        )
    versions = dict.fromkeys(f"{row.contender}: {row.version}" for row in rows if row.version)
    return "\n".join([*lines, *versions, *_left(found), *map(_said, goals(found, rows))])


def _left(found: Measurements) -> list[str]:
    if not found.left:
        return []
    tokens = [left.tokens for left in found.left]
    free = 1e3 * statistics.median(left.free_s for left in found.left)
    return [
        f"{len(tokens)} clients left in the middle: {statistics.fmean(tokens):.1f} more tokens "
        f"were written, at most {max(tokens)}; the place was seen free after {free:.1f} ms"
    ]


def _said(goal: Mapping[str, Any]) -> str:
    value, aim, unit = goal["value"], goal["goal"], f" {goal['unit']}".rstrip()
    return f"{goal['what']}: {value:.3g}{unit}; goal {aim:g}{unit}, " + (
        "met" if goal["is_met"] else "missed"
    )


def as_result(
    found: Measurements, rows: Sequence[EditorRow], commit: str, csv: Path | None
) -> dict[str, Any]:
    """The rows for programs."""
    return {
        "goals": list(goals(found, rows)),
        "reasons": found.reasons,
        "left": [asdict(left) for left in found.left],
        "rows": [{"commit": commit, **asdict(row)} for row in rows],
        "csv": None if csv is None else str(csv),
    }
