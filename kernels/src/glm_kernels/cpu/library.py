"""The compiled part of this package: found, checked and loaded at its first use.

It is compiled when the package is installed (hatch_build.py), never at run time. The environment
variable ``GLM_KERNELS_ISA`` or `use_isa` chooses a slower instruction set than the best one of the
processor, for tests and comparisons.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

ISA_VARIABLE = "GLM_KERNELS_ISA"
LIBRARY_VARIABLE = "GLM_KERNELS_LIBRARY"
ISAS = ("portable", "avx2", "avx512", "amx")
"""Instruction sets by their number in native/abi.h, the best last."""
_SOURCES = Path(__file__).parent / "native"
_REBUILD = "install the package again where there is a C++ compiler (g++ or clang)"

_P, _L, _I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_LINEAR_TYPES = (*(_P,) * 6, *(_L,) * 4, *(_I,) * 7)

_isa: int | None = None


class LibraryError(Exception):
    """The compiled part cannot be used; the message is the reason."""


@cache
def _load() -> ctypes.CDLL | LibraryError:
    path = Path(os.environ.get(LIBRARY_VARIABLE) or _SOURCES / "libglm_kernels.so")
    if not path.exists():
        return LibraryError(f"the compiled part is not there; {_REBUILD}")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return LibraryError(f"the compiled part does not load ({error}); {_REBUILD}")
    library.glm_source_hash.restype = ctypes.c_char_p
    if library.glm_source_hash().decode() != source_hash():
        return LibraryError(f"the compiled part is of another version; {_REBUILD}")
    library.glm_linear_weight_only.argtypes = _LINEAR_TYPES
    library.glm_pack_levels.argtypes = (_P, _P, _L, _L, _L, _I, _I, _I)
    library.glm_pack_levels.restype = None
    library.glm_dequantize.argtypes = (*(_P,) * 4, *(_L,) * 4, *(_I,) * 5)
    library.glm_dequantize.restype = None
    library.glm_decode_workspace.argtypes = (_P, _L, _I)
    library.glm_decode_workspace.restype = _L
    library.glm_decode_step.argtypes = (_P, _P, _I)
    library.glm_use_threads_of.argtypes = [_P]
    library.glm_use_threads_of(_torch_parallel())
    return library


def _torch_parallel() -> int | None:
    """Address of the function that runs a task on the threads of the OpenMP that torch loaded."""
    import torch  # noqa: F401  loads its OpenMP for the whole process

    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, _P).value
    except (AttributeError, OSError):
        return None


def source_hash() -> str:
    """Return the hash of the sources; the library holds the one it was compiled from."""
    digest = hashlib.sha256()
    for path in sorted([*_SOURCES.glob("*.cpp"), *_SOURCES.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def unavailable() -> str | None:
    """Return why the compiled part cannot be used, or None when it can."""
    loaded = _load()
    return str(loaded) if isinstance(loaded, LibraryError) else None


def library() -> ctypes.CDLL:
    """Return the loaded library.

    Raises:
        LibraryError: it is not there, does not load, or is of other sources.
    """
    loaded = _load()
    if isinstance(loaded, LibraryError):
        raise loaded
    return loaded


def isa() -> int:
    """Return the number of the instruction set in use: the best one unless chosen otherwise.

    Raises:
        ValueError: the environment variable names one that this processor does not have.
    """
    global _isa
    if _isa is None:
        _isa = _number(os.environ.get(ISA_VARIABLE) or ISAS[library().glm_best_isa()])
    return _isa


def available_isas() -> list[str]:
    """Return the names of the instruction sets that this processor can run, the best last."""
    return list(ISAS[: library().glm_best_isa() + 1])


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Use instruction set `name` inside the ``with`` block: portable, avx2, avx512 or amx.

    Raises:
        ValueError: there is no such instruction set, or this processor does not have it.
    """
    global _isa
    before = isa()
    _isa = _number(name)
    try:
        yield
    finally:
        _isa = before


def _number(name: str) -> int:
    if name not in available_isas():
        raise ValueError(
            f"instruction set {name!r} cannot be used here; choose one of "
            f"{', '.join(available_isas())} in {ISA_VARIABLE} or use_isa"
        )
    return ISAS.index(name)
