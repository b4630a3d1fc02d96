"""Comparing tensors with an oracle, and saying how far apart they are."""

from __future__ import annotations

import logging
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

logger = logging.getLogger(__name__)

ArrayLike: TypeAlias = "Tensor | npt.NDArray[np.floating]"


def relative_error(actual: ArrayLike, expected: ArrayLike) -> float:
    """Returns max |actual - expected| / max |expected|, computed in float64.

    The largest entry is the yardstick: an entry near 0 would make a division by itself
    meaningless, since its rounding error comes from larger numbers that cancelled. When `expected`
    is all zeros the absolute error is returned.

    Raises:
        ValueError: the shapes differ.
    """
    a, e = _as_float64(actual), _as_float64(expected)
    if a.shape != e.shape:
        raise ValueError(f"actual has shape {a.shape}, expected {e.shape}: compare equal shapes")
    if a.size == 0:
        return 0.0
    yardstick = float(np.abs(e).max())
    return float(np.abs(a - e).max()) / (yardstick or 1.0)


def assert_relative(
    actual: ArrayLike, expected: ArrayLike, tolerance: float, what: str = "result"
) -> float:
    """Fails with the worst entry when `relative_error` exceeds the tolerance.

    The measured error is also logged (`pytest --log-cli-level=INFO`), so that a test can state it
    beside its tolerance.

    Returns:
        The measured error.
    """
    error = relative_error(actual, expected)
    logger.info("%s: relative error %.2e (tolerance %.1e)", what, error, tolerance)
    if not error <= tolerance:  # also when it is NaN
        a, e = _as_float64(actual), _as_float64(expected)
        worst = np.unravel_index(np.argmax(np.nan_to_num(np.abs(a - e), nan=np.inf)), a.shape)
        index = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: relative error {error:.2e} exceeds {tolerance:.1e}; "
            f"worst at {index}: {a[index]!r}, expected {e[index]!r}"
        )
    return error


def _as_float64(value: ArrayLike) -> npt.NDArray[np.float64]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, dtype=np.float64)
