"""Whether saved tensors are those a model needs, and if not, what to say."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_SHOWN = 3


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """What keeps `found` from being loaded into `expected`; None if nothing does."""
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    reshaped = [
        f"{name} has shape {list(found[name].shape)}, the model needs {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    faults = []
    if missing:
        faults.append(f"missing {_listed(missing)}")
    if extra:
        faults.append(f"not in the model: {_listed(extra)}")
    if reshaped:
        faults.append(_listed(reshaped))
    return "; ".join(faults) or None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
