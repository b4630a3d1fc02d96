"""Memory of a process that trains on the CPU: settings that keep it in bounds, and its peak."""

from __future__ import annotations

import os
import sys

from glm_kernels.memory import keep_freed_memory

_CACHED_PRIMITIVES = "64"


def tune_cpu_memory() -> None:
    """Keep freed tensors' memory for the next step, and bound what oneDNN keeps per shape.

    oneDNN compiles a kernel for every shape of matrix product and by default keeps 1024 of them,
    5 to 12 MB each with their buffers. The number of targets, and with it a shape, differs in every
    batch, so that a training would grow by 10 GB without ever using most of them again. A value
    that the user has put into the environment is left alone.
    """
    keep_freed_memory()
    # read by oneDNN when it runs its first product
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _CACHED_PRIMITIVES)


def peak_resident_bytes() -> int:
    """Largest resident memory of this process so far; 0 on Windows, which does not tell it."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
