from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glm_core.attention.spec import PrefixLM
from glm_core.checkpoint.loading import load_model
from glm_core.data.batch import Batch
from glm_core.testing import tiny_config
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer
from glm_core.train.blank_infilling import BlankInfillingTask


@pytest.fixture(scope="module")
def tokenizer() -> ByteBPETokenizer:
    return ByteBPETokenizer.train(["some words and more words"], 300)


def batch() -> Batch:
    labels = torch.full((2, 6), -100)
    labels[0, 3:] = torch.tensor([4, 5, 6])
    labels[1, 5] = 7
    return Batch(
        input_ids=torch.randint(300, (2, 6)),
        labels=labels,
        position_ids=torch.arange(6).repeat(2, 2, 1),
        mask=PrefixLM((3, 5)),
        lengths=(6, 6),
    )


def test_loss_is_summed_cross_entropy_when_computed(tokenizer: ByteBPETokenizer) -> None:
    task = BlankInfillingTask(tiny_config("chatglm-6b", vocab_size=300), tokenizer)
    model, rows = task.build_model(), batch()
    loss = task.loss(model, rows)
    hidden = model(rows.input_ids, rows.position_ids, rows.mask)
    logprobs = (hidden @ model.head_weight_VD.T).double().log_softmax(-1)
    expected = -sum(logprobs[b, t, rows.labels[b, t]] for b, t in ((0, 3), (0, 4), (0, 5), (1, 5)))
    assert loss.weight.item() == 4
    assert loss.total.item() == pytest.approx(expected.item(), abs=1e-5)  # measured 1.2e-6


def test_model_is_the_same_when_seed_is(tokenizer: ByteBPETokenizer) -> None:
    config = tiny_config("glm-base", vocab_size=300)
    a, b, c = (BlankInfillingTask(config, tokenizer, seed).build_model() for seed in (1, 1, 2))
    assert torch.equal(a.word_embeddings.weight, b.word_embeddings.weight)
    assert not torch.equal(a.word_embeddings.weight, c.word_embeddings.weight)


def test_model_computes_with_the_attention_that_is_set(tokenizer: ByteBPETokenizer) -> None:
    config = tiny_config("glm-base", vocab_size=300)
    task = BlankInfillingTask(config, tokenizer, attention="flex")
    assert task.build_model().attention_backend == "flex"
    assert BlankInfillingTask(config, tokenizer).build_model().attention_backend == "auto"


@pytest.mark.parametrize("family", ["glm-base", "glm-130b", "glm-4-9b"])
def test_flops_count_every_matrix_when_computed(tokenizer: ByteBPETokenizer, family: str) -> None:
    config = tiny_config(family, vocab_size=300)
    task = BlankInfillingTask(config, tokenizer)
    model = task.build_model()
    matrices = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    if config.tie_embeddings:
        matrices += model.word_embeddings.weight.numel()
    attention = 12 * config.num_layers * config.num_heads * config.head_dim * 6
    assert task.flops(batch()) == 12 * (6 * matrices + attention)


def test_folder_loads_when_exported(tokenizer: ByteBPETokenizer, tmp_path: Path) -> None:
    task = BlankInfillingTask(tiny_config("glm-base", vocab_size=300), tokenizer)
    model = task.build_model()
    task.export(model, tmp_path / "model")
    loaded, _ = load_model(tmp_path / "model")
    assert torch.equal(loaded.word_embeddings.weight, model.word_embeddings.weight)


def test_error_names_setting_when_tokenizer_is_too_large(tokenizer: ByteBPETokenizer) -> None:
    with pytest.raises(ValueError, match=r"model.vocab_size is 67, but the tokenizer has \d+ ids"):
        BlankInfillingTask(tiny_config("glm-base"), tokenizer)
