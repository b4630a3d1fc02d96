"""The C library's allocator, told to keep what was freed."""

from __future__ import annotations

import ctypes
import logging
import platform

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_KEPT = (2**30, 2**25)
"""Allocations up to this size come from memory that is kept, in bytes. The second is the most that
older glibc takes."""


def keep_freed_memory() -> bool:
    """Make glibc reuse the memory of freed tensors instead of returning it to the system.

    By default glibc maps every tensor above 32 MiB (128 KiB at first) anew and unmaps it when it
    is freed, so each step of an eager training on the CPU pays for page faults over again: 4 % of
    the step of a 9 M model, 17 % of one made of plain formulas with many temporaries (one thread,
    4096 tokens). The price is that the process does not shrink, and grows where the sizes of its
    tensors keep changing.
    Call it once, early; a process-wide setting, hence never done at import.

    Returns:
        True when the setting was made, False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        logger.info("allocator left as it is: the C library is not glibc")
        return False
    libc = ctypes.CDLL(None)
    kept = any(libc.mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST_KEPT)
    return bool(kept and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
