"""Files that are either whole or not there.

safetensors is written here rather than by its library, so that one pass over the bytes both writes
and hashes them, and so that a full disk is a plain OSError. Reading goes through the library.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# Source: https://github.com/huggingface/safetensors (format: length, JSON header, raw tensors)
DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_CHUNK = 1 << 24


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit: names the file and the remedy."""


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write tensors to a new file, durable when the call returns.

    Args:
        path: the file to create.
        tensors: any dtype in the safetensors format, any device.
        metadata: strings for the file's header.

    Returns:
        sha256 of the file, in hexadecimal.

    Raises:
        OSError: if the disk is full or not writable; the file may then be partly there.
    """
    kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    head, offsets = safetensors_head(kinds, metadata)
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for data in itertools.chain([memoryview(head)], (bytes_of(tensors[n]) for n in offsets)):
            for begin in range(0, len(data), _CHUNK):
                # hashed while the chunk is still in the cache
                file.write(data[begin : begin + _CHUNK])
                digest.update(data[begin : begin + _CHUNK])
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def safetensors_head(
    kinds: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    metadata: Mapping[str, str] | None = None,
) -> tuple[bytes, dict[str, int]]:
    """What stands before the tensors in a safetensors file.

    Args:
        kinds: dtype and shape of every tensor.
        metadata: strings for the header.

    Returns:
        The first bytes of the file, and where in the file each tensor begins, in that order.
    """
    # the widest dtypes first keeps every tensor aligned to its own size
    names = sorted(kinds, key=lambda name: (-kinds[name][0].itemsize, name))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end, begins = 0, {}
    for name in names:
        dtype, shape = kinds[name]
        begins[name], end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [begins[name], end],
        }
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    head = len(header).to_bytes(8, "little") + header
    return head, {name: len(head) + begin for name, begin in begins.items()}


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor; a copy only where it is not contiguous on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


def read_safetensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """Read every tensor of a file into fresh memory.

    Args:
        path: a safetensors file.
        remedy: what the user can do if it is missing or damaged, for the error.

    Raises:
        CheckpointError: if the file is missing, truncated or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # cloned: the library's tensors are views of the mapped file
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; {remedy}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or truncated ({error}); {remedy}") from error


def write_json(path: Path, value: Any) -> str:
    """Write JSON to a new file, durable when the call returns; returns its sha256."""
    data = (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file; CheckpointError if it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; {remedy}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged or truncated ({error}); {remedy}") from error


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make the names inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_folder(temporary: Path, final: Path) -> None:
    """Give a finished temporary folder its name, replacing what had it, in one rename.

    Both must be in the same parent folder. What was there before is moved aside first and deleted
    only after the new folder is durable.
    """
    fsync_folder(temporary)
    aside = None
    if final.exists():
        aside = final.with_name(f".old-{final.name}-{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
    try:
        temporary.rename(final)
    except OSError:
        if aside is not None:
            aside.rename(final)
        raise
    fsync_folder(final.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
