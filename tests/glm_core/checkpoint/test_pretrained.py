from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from glm_core.checkpoint.files import CheckpointError, write_safetensors
from glm_core.checkpoint.pretrained import EMBEDDED, load_pretrained, save_pretrained
from glm_core.model import Transformer
from glm_core.testing import tiny_config, tiny_model
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer

IDS = torch.tensor([[1, 5, 3, 2, 9, 11]])


@pytest.fixture(scope="module")
def tokenizer() -> ByteBPETokenizer:
    return ByteBPETokenizer.train(["some words and more words"], 300)


def saved(tokenizer: ByteBPETokenizer, folder: Path, **options: Any) -> Transformer:
    model = tiny_model("chatglm-6b", vocab_size=300)
    save_pretrained(model, tokenizer, folder, **options)
    return model


def test_logits_are_equal_when_loaded_back(tokenizer: ByteBPETokenizer, tmp_path: Path) -> None:
    model = saved(tokenizer, tmp_path / "m")
    loaded, their_tokenizer = load_pretrained(tmp_path / "m")
    assert not loaded.training and loaded.config == model.config
    assert torch.equal(loaded.logits(loaded(IDS)), model.logits(model(IDS)))
    assert their_tokenizer.encode("some words") == tokenizer.encode("some words")
    raw = json.loads((tmp_path / "m" / "config.json").read_text())
    assert raw["format"] == "glm-core" and raw["version"] == 1


def test_file_is_small_and_logits_close_when_int8(
    tokenizer: ByteBPETokenizer, tmp_path: Path
) -> None:
    model = saved(tokenizer, tmp_path / "m", quantize="int8")
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert (tmp_path / "m" / "model.safetensors").stat().st_size < 1.5 * matrices
    loaded, _ = load_pretrained(tmp_path / "m")
    ours, theirs = loaded.logits(loaded(IDS)), model.logits(model(IDS))
    # measured worst difference 0.8 % of the largest logit
    assert (ours - theirs).abs().max() < 0.03 * theirs.abs().max()


def test_dtype_is_converted_when_asked(tokenizer: ByteBPETokenizer, tmp_path: Path) -> None:
    saved(tokenizer, tmp_path / "m", quantize="int8")
    loaded, _ = load_pretrained(tmp_path / "m", dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


def test_folder_is_replaced_when_saved_again(tokenizer: ByteBPETokenizer, tmp_path: Path) -> None:
    saved(tokenizer, tmp_path / "m")
    (tmp_path / "m" / "stale").write_text("x")
    saved(tokenizer, tmp_path / "m")
    assert not (tmp_path / "m" / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_folder_is_untouched_when_disk_is_full(
    tokenizer: ByteBPETokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tokenizer, tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").read_bytes()

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glm_core.checkpoint.pretrained.write_safetensors", full)
    with pytest.raises(OSError, match="cannot save the model to .*No space left.*free some space"):
        saved(tokenizer, tmp_path / "m")
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_error_says_where_models_come_from_when_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: the folder does not exist.*nano-text"):
        load_pretrained(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="has no config.json"):
        load_pretrained(tmp_path)


def test_error_says_how_to_get_it_when_named_model_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EMBEDDED, "nano-text", tmp_path / "nano")
    with pytest.raises(CheckpointError, match="glm train experiment=nano_text"):
        load_pretrained("nano-text")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, r"of format 'other'; this program reads format 'glm-core'"),
        ({"version": 2}, r"version 2; this program reads version 1"),
        ({"model": {"vocab_size": 3}}, r"config.json does not describe a model"),
        ({"model": {"wings": 2}}, r"config.json does not describe a model .*wings"),
    ],
)
def test_error_names_config_when_unknown(
    tokenizer: ByteBPETokenizer, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    saved(tokenizer, tmp_path / "m")
    edit(tmp_path / "m" / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("drop", r"missing final_norm.weight"),
        ("add", r"not in the model: wings"),
        ("reshape", r"final_norm.weight has shape \[3\], the model needs \[32\]"),
    ],
)
def test_error_names_tensor_when_weights_do_not_fit(
    tokenizer: ByteBPETokenizer, tmp_path: Path, change: str, message: str
) -> None:
    model = saved(tokenizer, tmp_path / "m")
    tensors = dict(model.state_dict())
    if change == "drop":
        del tensors["final_norm.weight"]
    elif change == "add":
        tensors["wings"] = torch.ones(2)
    else:
        tensors["final_norm.weight"] = torch.ones(3)
    path = tmp_path / "m" / "model.safetensors"
    write_safetensors(path, tensors)
    with pytest.raises(CheckpointError, match=re.escape(str(path)) + ".*" + message):
        load_pretrained(tmp_path / "m")


def test_error_names_file_when_weights_are_truncated(
    tokenizer: ByteBPETokenizer, tmp_path: Path
) -> None:
    saved(tokenizer, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged or truncated.*again"):
        load_pretrained(tmp_path / "m")


def test_error_lists_kinds_when_quantize_is_unknown(tokenizer: ByteBPETokenizer) -> None:
    model = Transformer(tiny_config("glm-base", vocab_size=300))
    with pytest.raises(ValueError, match="quantize is 'int3'; use one of: none, int8"):
        save_pretrained(model, tokenizer, "unused", quantize="int3")
