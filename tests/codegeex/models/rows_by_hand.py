"""Quantized rows of the released models, in numpy: nothing of the library is used."""

import numpy as np


def levels_of(weight, bits):
    """Levels and scales as the original computes them in half precision: numpy, nothing shared."""
    weight = weight.astype(np.float16)
    largest = np.abs(weight).max(axis=1).astype(np.float32)
    scale = (largest / (2 ** (bits - 1) - 1)).astype(np.float16)
    ratio = (weight.astype(np.float32) / scale[:, None].astype(np.float32)).astype(np.float16)
    return np.rint(ratio).astype(np.int8), scale


def in_bytes(levels, bits):
    """Two levels in a byte, the even column in the high half, negative ones cut to four bits."""
    if bits == 8:
        return levels
    nibbles = levels.astype(np.int16) & 15
    return ((nibbles[:, 0::2] << 4) | nibbles[:, 1::2]).astype(np.uint8).view(np.int8)
