"""The rows for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from glm_core.bench.kernels.row import KernelRow

_HEAD = (
    f"{'op':<21}{'shape':<20}{'dtype':<10}{'part':<35}{'ours':>13}  {'against':<27}"
    f"{'theirs':>13}{'ratio':>8}  {'goal':<14}"
)
_MOST_NAMES = 6
_LEGEND = (
    "ratio: their time / ours, above 1 we are faster; of reading memory, our share of its rate; of "
    "memory, theirs / ours. Medians of the rounds."
)


def as_table(rows: Sequence[KernelRow]) -> str:
    """A line for each kernel, with the peer that is hardest to beat, and the other ratios below."""
    first = rows[0]
    load = max(row.load for row in rows)
    lines = [
        f"{first.device}: {first.machine}, {first.isa}, {first.threads} threads, {first.clock}, "
        f"torch {first.torch}, load up to {load:.1f}",
        _HEAD,
    ]
    for group in _groups(rows):
        lines += _lines(group)
    return "\n".join([*lines, *_reasons(rows), _summary(rows), _LEGEND])


def as_result(rows: Sequence[KernelRow], commit: str, csv: Path) -> dict[str, Any]:
    """The rows for programs: `ratios` has each kernel against its hardest peer."""
    hardest = {_label(group): _hardest(group).ratio for group in _groups(rows)}
    ratios = {label: ratio for label, ratio in hardest.items() if ratio is not None}
    with_commit = [{"commit": commit, **asdict(row)} for row in rows]
    return {"ratios": ratios, "rows": with_commit, "csv": str(csv)}


def _groups(rows: Sequence[KernelRow]) -> Iterator[list[KernelRow]]:
    """The rows of one kernel, against all its peers."""
    for _, group in groupby(rows, key=_label):
        yield list(group)


def _label(row: KernelRow | list[KernelRow]) -> str:
    row = row[0] if isinstance(row, list) else row
    return f"{row.op} {row.shape} {row.dtype}, {row.part}"


def _hardest(group: Sequence[KernelRow]) -> KernelRow:
    """The peer with the lowest ratio, among those with a goal where there are any."""
    ran = [row for row in group if row.ratio is not None]
    with_goal = [row for row in ran if row.goal]
    return min(with_goal or ran or group, key=lambda row: row.ratio or 0.0)


def _lines(group: Sequence[KernelRow]) -> Iterator[str]:
    row = _hardest(group)
    line = f"{row.op:<21}{row.shape:<20}{row.dtype:<10}{row.part:<35}{_value(row.ours, row):>13}"
    if row.ratio is None:
        yield f"{line}  nobody to compare with"
        return
    verdict = "" if not row.verdict else f"{row.goal:<14}{row.verdict}"
    yield (
        f"{line}  {row.peer:<27}{_value(row.theirs, row):>13}{row.ratio:>7.2f}x  {verdict}".rstrip()
    )
    others = [f"{other.peer} {other.ratio:.2f}x" for other in group if other.ratio and other != row]
    if row.error is not None:
        others.append(f"our error {row.error:.1e}")
    if others:
        yield f"{'':<21}{'; '.join(others)}"


def _value(value: float | None, row: KernelRow) -> str:
    return "" if value is None else f"{value:,.{1 if value >= 100 else 2}f} {row.unit}"


def _reasons(rows: Sequence[KernelRow]) -> Iterator[str]:
    """Each reason once, with the ops that it is true for."""
    places: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.reason:
            found = places.setdefault((row.peer, row.reason), [])
            name = row.op if row.part in ("", "forward") else f"{row.op} {row.part}"
            if name not in found:
                found.append(name)
    for (peer, reason), ops in places.items():
        where = ", ".join(ops) if len(ops) <= _MOST_NAMES else f"{len(ops)} kernels"
        yield f"{peer} could not run ({where}): {reason}"


def _summary(rows: Sequence[KernelRow]) -> str:
    verdicts = [_hardest(group).verdict for group in _groups(rows)]
    met = verdicts.count("met")
    missed = len([verdict for verdict in verdicts if verdict]) - met
    return f"{met} goals met, {missed} missed, {len(verdicts) - met - missed} rows without a goal"
