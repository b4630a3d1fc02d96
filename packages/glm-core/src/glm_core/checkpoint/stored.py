"""Tensors that stay in their files until they are asked for.

Opening a file reads its table of contents alone; reading a tensor reads that tensor's bytes alone,
into fresh memory. So the memory in use is that of the tensors at hand, whatever the size of the
file: mapping the file instead would count the whole of it against a process's limit.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glm_core.checkpoint.files import DTYPE_NAMES, CheckpointError
from glm_core.git_lfs import POINTER_FAULT, is_pointer

_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What torch raises when the pickle in a file is cut or garbled."""
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies in a file."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    """Bytes from the beginning of the file to the first element."""
    stride: tuple[int, ...]
    """In elements, as torch counts."""

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie one after the other."""
        return self.stride == contiguous_stride(self.shape)

    @property
    def span(self) -> int:
        """Elements from the first to the last, both included."""
        if math.prod(self.shape) == 0:
            return 0
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))

    def read(self) -> Tensor:
        """Reads the tensor into fresh memory, contiguous.

        Raises:
            CheckpointError: the file has become shorter since it was opened.
        """
        flat = self._read_elements(0, self.span)
        return flat.as_strided(self.shape, self.stride).contiguous()

    def read_rows(self, begin: int, end: int) -> Tensor:
        """Reads rows begin..end-1 of a contiguous tensor into fresh memory."""
        assert self.is_contiguous
        row = math.prod(self.shape[1:])
        flat = self._read_elements(begin * row, end * row)
        return flat.reshape(end - begin, *self.shape[1:])

    def read_rows_into(self, begin: int, out: Tensor) -> None:
        """Reads rows from `begin` on into memory that is there: as many as `out`, which must fit.

        Memory that is used again spares the kernel to clear fresh one: four times as fast from the
        page cache.
        """
        assert self.fits(out)
        self._fill(begin * math.prod(self.shape[1:]), out.detach().view(-1))

    def fits(self, out: Tensor) -> bool:
        """Whether bytes can go from the file into `out` as they are."""
        is_plain = out.device.type == "cpu" and out.dtype == self.dtype and out.is_contiguous()
        return is_plain and self.is_contiguous and tuple(out.shape[1:]) == self.shape[1:]

    def _read_elements(self, begin: int, end: int) -> Tensor:
        flat = torch.empty(end - begin, dtype=self.dtype)
        self._fill(begin, flat)
        return flat

    def _fill(self, begin: int, flat: Tensor) -> None:
        if flat.numel() == 0:
            return
        view = memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.offset + begin * self.dtype.itemsize)
                read_exactly(file, view, self.path)
        except OSError as error:
            raise CheckpointError(_why_unreadable(self.path, error)) from error


def read_exactly(file: Any, view: memoryview, path: Path) -> None:
    """Fills `view` from an unbuffered file; one read returns at most 2 GB.

    Raises:
        CheckpointError: the file ends before.
    """
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise CheckpointError(f"{path} is truncated: copy or download it again")
        done += count


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor whose elements lie one after the other."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def open_tensors(path: Path) -> dict[str, StoredTensor]:
    """Reads the table of contents of a .safetensors file, or of a file that torch.save wrote.

    Nested dictionaries come out flat, their keys joined by dots; what is no tensor is left out.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, or holds more than weights.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: copy or download it again")
    try:
        if is_pointer(path):
            raise CheckpointError(f"{path} {POINTER_FAULT}")
        tensors = _open_safetensors(path) if path.suffix == ".safetensors" else _open_torch(path)
    except OSError as error:
        raise CheckpointError(_why_unreadable(path, error)) from error
    size = path.stat().st_size
    for name, tensor in tensors.items():
        if tensor.offset + tensor.span * tensor.dtype.itemsize > size:
            raise CheckpointError(
                f"{path} is truncated: it has {size} bytes, and {name} lies beyond; "
                "copy or download it again"
            )
    return tensors


def _open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Source: https://github.com/huggingface/safetensors (length, JSON header, raw tensors)."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _LONGEST_HEADER):
            raise CheckpointError(
                f"{path} is truncated or no safetensors file: copy or download it again"
            )
        header = file.read(length)
    try:
        entries: dict[str, Any] = json.loads(header)
        entries.pop("__metadata__", None)
        return {
            name: _safetensors_entry(path, 8 + length, entry) for name, entry in entries.items()
        }
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: its header cannot be read ({error}); copy or download it again"
        ) from error


def _safetensors_entry(path: Path, data_begin: int, entry: Mapping[str, Any]) -> StoredTensor:
    if str(entry["dtype"]) not in _DTYPES:
        raise CheckpointError(
            f"{path} stores weights as {entry['dtype']}, which is not supported: get the model in "
            "F16, BF16 or F32"
        )
    dtype, shape = _DTYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"])
    begin, end = entry["data_offsets"]
    if begin < 0 or min(shape, default=0) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{end - begin} bytes for shape {list(shape)} of {entry['dtype']}")
    return StoredTensor(path, shape, dtype, data_begin + begin, contiguous_stride(shape))


def _open_torch(path: Path) -> dict[str, StoredTensor]:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(_why_no_zip(path))
    _check_uncompressed(path)
    try:
        with torch.serialization.safe_globals(_harmless_globals()):
            # On the meta device nothing but the table of contents is read.
            content = torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than weights ({_forbidden(error)}), and reading that could run "
            "code. It is not read. If you trust where it comes from, keep its tensors alone: "
            f"python -c \"import os, torch; f = '{path}'; s = torch.load(f, weights_only=False); "
            "s = {'module': s['module']} if 'module' in s else "
            "{k: v for k, v in s.items() if torch.is_tensor(v)}; torch.save(s, f + '.new'); "
            "os.replace(f + '.new', f)\""
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} is damaged or truncated ({_first(error)}): copy or download it again"
        ) from error
    return {name: _torch_entry(path, tensor) for name, tensor in _flatten(content, "")}


def _check_uncompressed(path: Path) -> None:
    """torch.save never compresses; what somebody packed anew lies elsewhere than torch says."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): copy or download it again") from error
    if packed:
        raise CheckpointError(f"{path} is compressed, which torch.save never does: {_anew(path)}")


def _torch_entry(path: Path, tensor: Tensor) -> StoredTensor:
    storage: Any = tensor.untyped_storage()
    offset = storage._checkpoint_offset + tensor.storage_offset() * tensor.element_size()
    return StoredTensor(path, tuple(tensor.shape), tensor.dtype, offset, tuple(tensor.stride()))


def _flatten(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _flatten(child, f"{prefix}.{key}" if prefix else str(key))


def _harmless_globals() -> list[Any]:
    """What training checkpoints hold beside tensors, and whose construction runs no code."""
    import argparse

    import numpy as np

    makers: list[Any] = [np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]]
    numpy_types = [np.ndarray, np.dtype, *makers]
    # numpy 1 wrote them down under its old path
    numpy_types += [(make, f"numpy.core.multiarray.{make.__name__}") for make in makers]
    numpy_types += [type(np.dtype(kind)) for kind in ("u4", "u8", "i4", "i8", "f4", "f8", "bool")]
    return [argparse.Namespace, *numpy_types]


def _why_no_zip(path: Path) -> str:
    with open(path, "rb") as file:
        begins_like_pickle = file.read(1) == b"\x80"
    if os.path.getsize(path) == 0 or not begins_like_pickle:
        return f"{path} is truncated or no file of weights: copy or download it again"
    return (
        f"{path} is in the format that torch wrote before 1.6, or is truncated. If it is whole, "
        + _anew(path)
    )


def _anew(path: Path) -> str:
    return (
        f"write it anew: python -c \"import os, torch; f = '{path}'; "
        "torch.save(torch.load(f, weights_only=True), f + '.new'); os.replace(f + '.new', f)\""
    )


def _why_unreadable(path: Path, error: OSError) -> str:
    return (
        f"{path} cannot be read ({error.strerror or error}): check its permissions and its disk, "
        "or copy it again"
    )


def _forbidden(error: BaseException) -> str:
    """Which object of a pickle torch refused to make."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found[1] if found else "an object that is no tensor, or damage"


def _first(error: BaseException) -> str:
    """The beginning of an error of torch, which may go on for a page."""
    return " ".join(str(error).split())[:160]
