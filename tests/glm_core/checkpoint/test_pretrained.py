"""Models written as folders: what is in them, and that they are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glm_core.checkpoint.loading import load_model
from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.model import Transformer
from glm_core.quantize import QuantizeConfig, quantize_
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


def test_folder_says_what_it_is_when_saved(tokenizer: ByteBPETokenizer, tmp_path: Path) -> None:
    model = saved(tokenizer, tmp_path / "m")
    raw = json.loads((tmp_path / "m" / "config.json").read_text())
    assert raw == {"format": "glm-core", "version": 1, "model": model.config.to_dict()}


def test_file_is_small_and_logits_close_when_int8(
    tokenizer: ByteBPETokenizer, tmp_path: Path
) -> None:
    model = saved(tokenizer, tmp_path / "m", quantize="int8")
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert (tmp_path / "m" / "model.safetensors").stat().st_size < 1.5 * matrices
    loaded, _ = load_model(tmp_path / "m")
    ours, theirs = loaded.logits(loaded(IDS)), model.logits(model(IDS))
    # measured worst difference 0.8 % of the largest logit
    assert (ours - theirs).abs().max() < 0.03 * theirs.abs().max()


def test_quantized_model_stays_so_when_saved(tokenizer: ByteBPETokenizer, tmp_path: Path) -> None:
    model = tiny_model("glm-4-9b", vocab_size=300)
    quantize_(model, QuantizeConfig(bits=4))
    save_pretrained(model, tokenizer, tmp_path / "m")
    loaded, _ = load_model(tmp_path / "m")
    state = model.state_dict()
    assert state.keys() == loaded.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == state[name].dtype and torch.equal(tensor, state[name]), name


def test_folder_is_replaced_when_saved_again(tokenizer: ByteBPETokenizer, tmp_path: Path) -> None:
    saved(tokenizer, tmp_path / "m")
    (tmp_path / "m" / "stale").write_text("x")
    saved(tokenizer, tmp_path / "m")
    assert not (tmp_path / "m" / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_loaded_model_lives_on_when_its_folder_is_replaced(
    tokenizer: ByteBPETokenizer, tmp_path: Path
) -> None:
    model = saved(tokenizer, tmp_path / "m")
    loaded, _ = load_model(tmp_path / "m")
    save_pretrained(tiny_model("chatglm-6b", seed=1, vocab_size=300), tokenizer, tmp_path / "m")
    assert torch.equal(loaded.logits(loaded(IDS)), model.logits(model(IDS)))


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


def test_error_lists_kinds_when_quantize_is_unknown(tokenizer: ByteBPETokenizer) -> None:
    model = Transformer(tiny_config("glm-base", vocab_size=300))
    with pytest.raises(ValueError, match="quantize is 'int3'; use one of: none, int8"):
        save_pretrained(model, tokenizer, "unused", quantize="int3")
