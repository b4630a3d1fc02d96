"""Folders with a .npy file for each tensor, as MindSpore checkpoints are exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.stored import StoredTensor

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
}


def npy_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder by the names of their files, without the ending; {} without any.

    Raises:
        CheckpointError: a file is damaged, or holds what is no array of floating-point numbers.
    """
    return {path.stem: _open(path) for path in sorted(folder.glob("*.npy"))}


def _open(path: Path) -> StoredTensor:
    try:
        # Mapped: nothing but the header is read. Objects, whose reading runs code, are refused.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{path} is damaged or no .npy file ({error}): copy or export it again"
        ) from error
    kind = _DTYPES.get(array.dtype.name)
    if kind is None or not array.dtype.isnative:
        raise CheckpointError(
            f"{path} holds {array.dtype.str} numbers: weights must be float16, float32 or float64, "
            "in this machine's order of bytes; export it again"
        )
    assert isinstance(array, np.memmap)
    stride = tuple(size // array.dtype.itemsize for size in array.strides)
    return StoredTensor(path, array.shape, kind, array.offset, stride)
