"""What general compressors need for the held-out text when they know the training text."""

from __future__ import annotations

import lzma
import zlib

ZLIB_WINDOW = 32 * 1024


def lzma_bits_per_byte(known: bytes, text: bytes) -> float:
    """Returns the bits that LZMA adds for each byte of `text` after it has read `known`.

    Args:
        known: training text; the dictionary is large enough to hold all of it.
        text: held-out text.
    """
    size = 1 << max(16, (len(known) + len(text) - 1).bit_length())
    filters = [{"id": lzma.FILTER_LZMA1, "preset": 6, "dict_size": min(size, 1 << 29)}]

    def length(data: bytes) -> int:
        return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))

    alone = length(known) if known else 0
    return 8.0 * (length(known + text) - alone) / len(text)


def zlib_bits_per_byte(known: bytes, text: bytes) -> float:
    """Returns the bits per byte of zlib at level 9, primed with the last 32 KiB of `known`."""
    compressor = zlib.compressobj(9, zdict=known[-ZLIB_WINDOW:])
    compressed = compressor.compress(text) + compressor.flush()
    return 8.0 * len(compressed) / len(text)
