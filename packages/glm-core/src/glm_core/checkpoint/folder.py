"""A folder of weights as its files lie there: which tensors it has, per tensor-parallel rank."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_core.checkpoint.files import CheckpointError, read_json
from glm_core.checkpoint.npy import npy_tensors
from glm_core.checkpoint.stored import StoredTensor, open_tensors

REMEDY = "copy or download it again"
_RANK = re.compile(r"mp_rank_(\d+)_model_states\.(?:pt|safetensors)")
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_SHARD = re.compile(r"-\d+-of-\d+(?=\.\w+$)")
_LATEST = ("latest", "latest_checkpointed_iteration.txt")


@dataclass(frozen=True, slots=True)
class WeightFolder:
    """What lies in a folder, before anybody knows which format it is."""

    path: Path
    ranks: tuple[dict[str, StoredTensor], ...]
    """Tensors by name for every tensor-parallel rank; one rank where the format knows none."""
    is_tensor_parallel: bool
    """Whether the files are named by rank."""
    config: dict[str, Any]
    """config.json; empty if there is none."""

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """The tensors of the first rank."""
        return self.ranks[0]

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self.ranks[0]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor in the first rank.

        Raises:
            CheckpointError: there is no such tensor.
        """
        if name not in self.tensors:
            raise CheckpointError(f"the tensor {name} is missing: {REMEDY}")
        return self.tensors[name].shape

    def count_layers(self, pattern: str) -> int:
        """One more than the largest number that `pattern`'s only group finds in the names."""
        found = [re.match(pattern, name) for name in self.tensors]
        return max((int(match[1]) + 1 for match in found if match), default=0)


def open_folder(path: Path | str) -> WeightFolder:
    """Reads the table of contents of every weight file in a folder, or of a file given by itself.

    Understands one file, under the usual name or its own; several with an index; one per
    tensor-parallel rank, also in the sub-folder that a file `latest` names (DeepSpeed,
    SwissArmyTransformer); and a .npy file for each tensor (MindSpore).

    Raises:
        CheckpointError: there are no weights, or a file is missing or damaged.
    """
    path = Path(path)
    if path.is_file():
        return WeightFolder(path.parent, (open_tensors(path),), False, _read_config(path.parent))
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist: give the folder that holds the weights")
    config = _read_config(path)
    ranks = _rank_files(_latest(path))
    if ranks:
        return WeightFolder(path, tuple(map(open_tensors, ranks)), True, config)
    for name in _SINGLE:
        index = path / f"{name}.index.json"
        if index.is_file():
            return WeightFolder(path, (_open_index(index),), False, config)
        if (path / name).is_file():
            return WeightFolder(path, (open_tensors(path / name),), False, config)
    found = sorted(file.name for file in path.iterdir() if file.suffix in _SUFFIXES)
    if len(found) == 1 and not _SHARD.search(found[0]) and (path / found[0]).exists():
        return WeightFolder(path, (open_tensors(path / found[0]),), False, config)
    arrays = {} if found else npy_tensors(path)
    if arrays:
        return WeightFolder(path, (arrays,), False, config)
    raise CheckpointError(_why_no_weights(path, found))


def _why_no_weights(path: Path, found: list[str]) -> str:
    shard = next((name for name in found if _SHARD.search(name)), None)
    if shard is not None:
        index = _SHARD.sub("", shard) + ".index.json"
        return f"{path} has {shard} but no {index}, which tells what is in which file: copy it too"
    broken = next((name for name in found if not (path / name).exists()), None)
    if broken is not None:
        return f"{path / broken} is a link to a file that is gone: {REMEDY}"
    if found:
        return (
            f"{path} has weights in several files with names of their own: give the path of the "
            f"one that is the model, such as {path / found[0]}, to `glm convert`, or keep it alone "
            f"in a folder ({', '.join(found[:4])})"
        )
    return (
        f"no weights in {path}: expected model.safetensors or pytorch_model.bin, either with "
        ".index.json for several files, mp_rank_00_model_states.pt (or .safetensors), one file "
        "under a name of its own, or a .npy file for each tensor"
    )


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        return {}
    config = read_json(file, REMEDY)
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} holds no JSON object: {REMEDY}")
    return config


def _latest(path: Path) -> Path:
    """The folder that DeepSpeed's or Megatron's note names; `path` without such a note."""
    note = next((path / name for name in _LATEST if (path / name).is_file()), None)
    if note is None:
        return path
    name = note.read_text(encoding="utf-8", errors="replace").strip()
    folder = path / name
    if not _is_plain(name) or not folder.is_dir():
        raise CheckpointError(
            f"{note} names the folder {name!r}, which is not in {path}: copy it as well, or "
            f"delete {note.name} to read the files beside it"
        )
    return folder


def _rank_files(folder: Path) -> list[Path]:
    found: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        match = _RANK.fullmatch(file.name)
        if match:
            other = found.setdefault(int(match[1]), file)
            if other is not file:
                raise CheckpointError(
                    f"{folder} has rank {int(match[1])} twice, {other.name} and {file.name}: "
                    "keep one of them"
                )
    absent = sorted(set(range(max(found, default=-1) + 1)) - set(found))
    if absent:
        raise CheckpointError(
            f"{folder} lacks mp_rank_{absent[0]:02d}_model_states: it has ranks "
            f"{sorted(found)}; {REMEDY}"
        )
    return [found[rank] for rank in sorted(found)]


def _open_index(index: Path) -> dict[str, StoredTensor]:
    content = read_json(index, REMEDY)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no weight_map: {REMEDY}")
    if not weight_map:
        raise CheckpointError(f"{index} names no tensor in its weight_map: {REMEDY}")
    tensors: dict[str, StoredTensor] = {}
    for file_name in sorted(set(map(str, weight_map.values()))):
        if not _is_plain(file_name):
            raise CheckpointError(f"{index} names {file_name!r} outside its folder: {REMEDY}")
        tensors |= open_tensors(index.parent / file_name)
    absent = sorted(set(weight_map) - set(tensors))
    if absent:
        raise CheckpointError(
            f"{index.name} promises {absent[0]} in {weight_map[absent[0]]}, which does not have "
            f"it: {REMEDY}"
        )
    return tensors


def _is_plain(name: str) -> bool:
    """Whether a name stands for something in the folder itself."""
    return Path(name).name == name and name not in ("", "..")
