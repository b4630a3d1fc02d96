"""How the process takes memory from the system."""

from __future__ import annotations

import ctypes
import os
import platform

_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""
_ARENAS = 2


def limit_arenas() -> bool:
    """Lets the threads share a few heaps; to be called before there are many threads.

    glibc gives threads up to eight heaps for each core. Requests come and go in many threads, and
    what one heap has free is of no use to another: with 16 of them a server that holds as much as
    before grew by 12 MiB in a thousand requests, with two not at all.

    Returns:
        Whether that was done; not where MALLOC_ARENA_MAX decides it, or the C library is another.
    """
    if platform.libc_ver()[0] != "glibc" or "MALLOC_ARENA_MAX" in os.environ:
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS))
