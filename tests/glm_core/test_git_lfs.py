"""Pointers of Git LFS in place of weights and vocabularies."""

from pathlib import Path

import pytest

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.stored import open_tensors
from glm_core.tokenizer import load_tokenizer

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:5e974d9a69c242ce014c88c2b26089270f6198f3c0b700a887666cd3e816f17e\n"
    "size 2706249\n"
)


@pytest.mark.parametrize("name", ["model.safetensors", "mp_rank_00_model_states.pt", "a.bin"])
def test_error_names_git_lfs_when_weights_are_a_pointer(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name} is a Git LFS pointer.*`git lfs pull`"):
        open_tensors(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    ["tokenizer.model", "ice_text.model", "cog-pretrain.model", "vocab.txt", "tokenizer.json"],
)
@pytest.mark.parametrize("kind", [None, "glm4"])
def test_error_names_git_lfs_when_a_vocabulary_is_a_pointer(
    tmp_path: Path, name: str, kind: str | None
) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(ValueError, match=f"{name} is a Git LFS pointer.*`git lfs pull`"):
        load_tokenizer(tmp_path, kind)
