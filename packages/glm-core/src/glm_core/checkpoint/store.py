"""Training checkpoints that are complete or absent, whenever the process dies.

    DIR/step-00000120/
        model.safetensors optimizer.safetensors ema.safetensors   one file per part of the state
        state.json       step, consumed samples, what the run was
        manifest.json    size and sha256 of each file above

A checkpoint is written in a hidden temporary folder, every file and the folder are fsynced, and one
rename gives it its name. Older checkpoints are deleted only after that. No pickle anywhere.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from glm_core.checkpoint.files import (
    CheckpointError,
    fsync_folder,
    publish_folder,
    read_json,
    read_safetensors,
    sha256_of,
    write_json,
    write_safetensors,
)

logger = logging.getLogger(__name__)

FORMAT = {"format": "glm-core-training", "version": 1}
_STEP_FOLDER = re.compile(r"step-(\d{8,})")
_TEMPORARY, _DELETED = ".writing-", ".deleted-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was read back."""

    path: Path
    parts: dict[str, dict[str, Tensor]]
    """Tensors of each part, on the CPU."""
    state: dict[str, Any]
    """The JSON state given to `save`."""


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: where they live; created with the first one.
        keep_last: how many stay after a save.
    """

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self.folder = folder
        self.keep_last = keep_last

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        matches = (_STEP_FOLDER.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of `step`."""
        return self.folder / f"step-{step:08d}"

    def save(
        self, step: int, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> Path:
        """Write the checkpoint of `step`, then delete those beyond `keep_last`.

        Args:
            step: updates done; names the folder.
            parts: tensors by part ("model", "optimizer", ...), each part becomes one file.
            state: whatever JSON can hold.

        Raises:
            OSError: if the disk is full or not writable. What was saved before is untouched and
                the temporary folder is gone.
        """
        final = self.path(step)
        temporary = self.folder / f"{_TEMPORARY}{final.name}-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            _write(temporary, parts, state)
            publish_folder(temporary, final)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            kept = self.steps()
            where = f"the newest is {self.path(kept[-1])}" if kept else "there are none yet"
            raise OSError(
                error.errno,
                f"cannot save the checkpoint of step {step} in {self.folder}"
                f" ({error.strerror or error}). Earlier checkpoints are untouched: {where}."
                " Free some space (or set a smaller trainer.keep_last) and run the same command"
                " again to resume",
            ) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._delete_old()
        return final

    def load_latest(self) -> Checkpoint | None:
        """Read and verify the newest checkpoint; None if there is none."""
        steps = self.steps()
        return self.load(steps[-1]) if steps else None

    def load(self, step: int) -> Checkpoint:
        """Read and verify one checkpoint.

        Raises:
            CheckpointError: if a file is missing, damaged, or of an unknown format.
        """
        folder = self.path(step)
        remedy = self._remedy(step)
        manifest = read_json(folder / "manifest.json", remedy)
        try:
            known = {key: manifest[key] for key in FORMAT} == FORMAT
            files: dict[str, dict[str, Any]] = manifest["files"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / 'manifest.json'} is damaged; {remedy}") from error
        if not known:
            raise CheckpointError(
                f"{folder / 'manifest.json'} is of format {manifest['format']!r} version"
                f" {manifest['version']!r}; this program reads {FORMAT['format']!r} version"
                f" {FORMAT['version']}; {remedy}"
            )
        self._verify(folder, files, remedy)
        parts = {
            name.removesuffix(".safetensors"): read_safetensors(folder / name, remedy)
            for name in files
            if name.endswith(".safetensors")
        }
        return Checkpoint(folder, parts, read_json(folder / "state.json", remedy))

    def clean(self) -> None:
        """Delete what a killed process left half-written or half-deleted."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if path.name.startswith((_TEMPORARY, _DELETED, ".old-")):
                shutil.rmtree(path, ignore_errors=True)

    def _verify(self, folder: Path, files: Mapping[str, Mapping[str, Any]], remedy: str) -> None:
        for name, expected in files.items():
            path = folder / name
            if not path.is_file():
                raise CheckpointError(f"{path} is missing; {remedy}")
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise CheckpointError(
                    f"{path} is truncated or damaged: {size} bytes instead of"
                    f" {expected['bytes']}; {remedy}"
                )
            if sha256_of(path) != expected["sha256"]:
                raise CheckpointError(f"{path} is damaged: its sha256 is wrong; {remedy}")

    def _remedy(self, step: int) -> str:
        earlier = [other for other in self.steps() if other < step]
        then = f"resume from {self.path(earlier[-1]).name}" if earlier else "start afresh"
        return f"delete the folder {self.path(step)} and run the same command again to {then}"

    def _delete_old(self) -> None:
        for step in self.steps()[: -self.keep_last]:
            # renamed first: a kill while deleting must not leave half a checkpoint under its name
            doomed = self.folder / f"{_DELETED}{self.path(step).name}"
            try:
                self.path(step).rename(doomed)
                shutil.rmtree(doomed)
            except OSError as error:
                logger.warning("could not delete the old checkpoint %s: %s", doomed, error)


def _write(
    folder: Path, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    """Write all parts at once: hashing and waiting for the disk overlap between the files."""
    paths = {name: folder / f"{name}.safetensors" for name in parts}
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        jobs = {
            paths[name].name: pool.submit(write_safetensors, paths[name], tensors)
            for name, tensors in parts.items()
        }
    hashes = {name: job.result() for name, job in jobs.items()}
    hashes["state.json"] = write_json(folder / "state.json", state)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in hashes.items()
    }
    write_json(folder / "manifest.json", FORMAT | {"files": files})
    fsync_folder(folder)
