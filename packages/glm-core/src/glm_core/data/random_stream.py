"""Random numbers that are a pure function of (seed, epoch, index)."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What the numbers are for; two purposes never share numbers."""

    sample = 0
    order = 1


def random_stream(seed: int, epoch: int, index: int, purpose: Purpose) -> np.random.Generator:
    """A generator of its own for one sample.

    Philox is a counter-based generator: (seed, epoch) is its key and (index, purpose) the upper
    half of its counter, so streams never overlap and none depends on another.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, index, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
