"""Refuses to resume one run with the settings of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm_core.checkpoint.files import CheckpointError

_SHOWN = 4


def check_identity(run_dir: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Compare what a run was with what it is asked to be.

    Settings that only one of the two knows are passed over: a newer program may have more of them.

    Raises:
        CheckpointError: if a setting differs; names the settings and both values.
    """
    before, now = _flatten(saved), _flatten(current)
    differing = [
        f"{key} was {before[key]!r} and is now {now[key]!r}"
        for key in sorted(before.keys() & now.keys())
        if before[key] != now[key]
    ]
    if not differing:
        return
    more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    raise CheckpointError(
        f"run_dir {run_dir} holds the checkpoints of a different run: "
        f"{'; '.join(differing[:_SHOWN])}{more}. Put the settings back to resume it, or choose"
        " another run_dir"
    )


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
