"""safetensors files written a tensor at a time, in any order, with every place known beforehand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from glm_core.checkpoint.files import bytes_of, safetensors_head

Kind = tuple[torch.dtype, tuple[int, ...]]
"""Dtype and shape of a tensor."""


class SafetensorsWriter:
    """One file whose tensors arrive one by one: open from the first to the last of them.

    Args:
        path: the file to create.
        kinds: dtype and shape of every tensor it will hold.
    """

    def __init__(self, path: Path, kinds: Mapping[str, Kind]) -> None:
        self.path = path
        self._kinds = dict(kinds)
        self._absent = set(kinds)
        self._head, self._offsets = safetensors_head(kinds, {"format": "pt"})
        self._file: BinaryIO | None = None

    def write(self, name: str, parts: Sequence[Tensor]) -> None:
        """Writes a tensor; the last one makes the file durable.

        Args:
            parts: its rows from top to bottom, in one piece or several.
        """
        dtype, shape = self._kinds[name]
        rows = sum(part.shape[0] for part in parts) if shape else 0
        assert all(part.dtype == dtype for part in parts), f"{name} is not {dtype}"
        assert not shape or rows == shape[0], f"{name} has {rows} rows, not {shape[0]}"
        if self._file is None:
            self._file = open(self.path, "xb")  # noqa: SIM115 - closed by close()
            self._file.write(self._head)
        self._file.seek(self._offsets[name])
        for part in parts:
            self._file.write(bytes_of(part))
        self._absent.discard(name)
        if not self._absent:
            self._file.flush()
            os.fsync(self._file.fileno())
            self.close()

    def check_complete(self) -> None:
        """Makes sure that every tensor was written."""
        assert not self._absent, f"{self.path.name} lacks {sorted(self._absent)[:3]}"

    def close(self) -> None:
        """Closes the file, finished or not."""
        if self._file is not None:
            self._file.close()


class ShardedWriter:
    """The weight files of a checkpoint: one per rank, or as many as a size limit asks for.

    Args:
        folder: where to write.
        ranks: dtype and shape of every tensor of every tensor-parallel rank.
        is_tensor_parallel: whether the files are named by rank.
        max_bytes: largest size of a file that is not a rank's, in bytes; a tensor is never cut.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Sequence[Mapping[str, Kind]],
        is_tensor_parallel: bool,
        max_bytes: int,
    ) -> None:
        self.weight_map: dict[str, str] = {}
        """File of each tensor, for the index; empty where there is one file, or one per rank."""
        if is_tensor_parallel:
            files = [
                (f"mp_rank_{rank:02d}_model_states.safetensors", dict(kinds))
                for rank, kinds in enumerate(ranks)
            ]
        else:
            files = _name_shards(_fill_shards(ranks[0], max_bytes))
            if len(files) > 1:
                self.weight_map = {name: file for file, kinds in files for name in kinds}
        self._by_rank: list[dict[str, SafetensorsWriter]] = [{} for _ in ranks]
        self._writers = []
        for rank, (file, kinds) in enumerate(files):
            writer = SafetensorsWriter(folder / file, kinds)
            self._writers.append(writer)
            target = self._by_rank[rank if is_tensor_parallel else 0]
            target |= dict.fromkeys(kinds, writer)

    def write(self, rank: int, name: str, parts: Sequence[Tensor]) -> None:
        """Writes a tensor of a rank; see `SafetensorsWriter.write`."""
        self._by_rank[rank][name].write(name, parts)

    def close(self) -> None:
        """Closes every file, finished or not."""
        for writer in self._writers:
            writer.close()

    def check_complete(self) -> None:
        """Makes sure that every tensor was written."""
        for writer in self._writers:
            writer.check_complete()


def size_of(kind: Kind) -> int:
    """Bytes of a tensor."""
    dtype, shape = kind
    return torch.Size(shape).numel() * dtype.itemsize


def _fill_shards(kinds: Mapping[str, Kind], max_bytes: int) -> list[dict[str, Kind]]:
    """Puts tensors into files in their order; a new one where the next would exceed the limit."""
    shards: list[dict[str, Kind]] = [{}]
    size = 0
    for name, kind in kinds.items():
        if shards[-1] and size + size_of(kind) > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = kind
        size += size_of(kind)
    return shards


def _name_shards(shards: list[dict[str, Kind]]) -> list[tuple[str, dict[str, Kind]]]:
    if len(shards) == 1:
        return [("model.safetensors", shards[0])]
    count = len(shards)
    return [
        (f"model-{index:05d}-of-{count:05d}.safetensors", shard)
        for index, shard in enumerate(shards, 1)
    ]
