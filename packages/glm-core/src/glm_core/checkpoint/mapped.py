"""Tensors as views of their file: read when they are used, shared between processes."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from glm_core.checkpoint.stored import StoredTensor


class MappedFiles:
    """Files mapped into memory, each once.

    The pages belong to the page cache: a second process, or a second load, reads no byte again and
    takes no memory for them. Writing to a mapped tensor copies the page written to; the file never
    changes. The map lives as long as a tensor in it.
    """

    def __init__(self) -> None:
        self._files: dict[Path, Tensor] = {}

    def tensor(self, stored: StoredTensor) -> Tensor | None:
        """The tensor as a view of its file; None if it lies there in a way that no view can have.

        That is a view on strides, or at an address that is not a multiple of its element's size.
        """
        itemsize = stored.dtype.itemsize
        if not stored.is_contiguous or stored.offset % itemsize:
            return None
        num_bytes = math.prod(stored.shape) * itemsize
        if num_bytes == 0:
            return torch.empty(stored.shape, dtype=stored.dtype)
        data = self._file(stored.path)[stored.offset : stored.offset + num_bytes]
        return data.view(stored.dtype).view(stored.shape)

    def _file(self, path: Path) -> Tensor:
        if path not in self._files:
            size = path.stat().st_size
            self._files[path] = torch.from_file(
                str(path), shared=False, size=size, dtype=torch.uint8
            )
        return self._files[path]
