"""Texts with adapters of their own in one step, each against the model with that adapter alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glm_core.infer.paged import Runner, Work
from glm_core.model import Transformer
from glm_core.testing import assert_relative, randomize, tiny_model, write_lora
from glm_core.tune.lora import load_lora, lora_rows
from glm_core.tune.prefix import PrefixEncoder
from glm_core.tune.prefix_file import load_prefix, save_prefix

ADAPTERS = ("", "one", "short", "two", "long")
TOLERANCE = 2e-6
"""Of logits, relative; the worst measured was 5e-7."""


def small_model(head_dim: int = 16) -> Transformer:
    sizes = {"head_dim": head_dim, "ffn_hidden_size": 48, "max_position_embeddings": 256}
    return tiny_model("chatglm2-6b", **sizes)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Two LoRA adapters and two prefixes, of different lengths."""
    root = tmp_path_factory.mktemp("adapters")
    name = "transformer.encoder.layers.{}.self_attention.query_key_value"
    for seed, adapter in enumerate(("one", "two")):
        write_lora(root / adapter, {name.format(seed): (4, 64, 128)}, seed)
    for seed, (adapter, length) in enumerate((("short", 3), ("long", 70))):
        model = small_model()
        model.prefix = PrefixEncoder(model.config, length)
        randomize(model.prefix, seed)
        save_prefix(model, root / adapter / "model.safetensors")
    return {adapter: root / adapter for adapter in ADAPTERS[1:]}


@torch.no_grad()
def expected(ids: list[int], folder: Path | None, head_dim: int) -> Tensor:
    """Logits after the last column."""
    model = small_model(head_dim)
    if folder is None:
        return model.logits(model(torch.tensor([ids])))[0, -1]
    if (folder / "model.safetensors").exists():
        load_prefix(model, folder).eval()
        return model.logits(model(torch.tensor([ids])))[0, -1]
    with lora_rows(model, [load_lora(model, folder)]):
        return model.logits(model(torch.tensor([ids])))[0, -1]


def with_adapters(folders: dict[str, Path], num_pages: int = 40) -> Runner:
    runner = Runner(small_model(), num_pages)
    for name, folder in folders.items():
        runner.add_adapter(name, folder)
    return runner


def straight(count: int) -> list[tuple[int, int]]:
    return [(column, 0) for column in range(count)]


def test_each_text_has_its_own_adapter_when_all_are_in_one_step(folders) -> None:
    runner = with_adapters(folders)
    assert sorted(runner.adapters) == sorted(ADAPTERS[1:])
    works, texts = [], []
    for seed, adapter in enumerate(ADAPTERS * 2):
        ids = random.Random(seed).choices(range(67), k=60 + 3 * seed)
        text, cached = runner.open(ids, straight(len(ids)), 0, adapter)
        assert cached == 0, "what one adapter has read begins no text of another"
        texts.append((text, ids, adapter))
        works.append(Work(text, ids[:-1], straight(len(ids) - 1), "none"))
    assert runner.step(works) == [None] * len(works)
    last = [Work(text, ids[-1:], [(len(ids) - 1, 0)]) for text, ids, _ in texts]
    for logits, (_, ids, adapter) in zip(runner.step(last), texts, strict=True):
        assert logits is not None
        assert_relative(logits, expected(ids, folders.get(adapter), 16), TOLERANCE)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_beginning_is_shared_when_the_adapter_is_the_same(folders, adapter: str) -> None:
    runner = with_adapters(folders)
    ids = random.Random(1).choices(range(67), k=150)
    for name, other in ((adapter, adapter), *((a, None) for a in ADAPTERS if a != adapter)):
        text, _ = runner.open(ids, straight(150), 0, adapter)
        runner.step([Work(text, ids[text.length :], straight(150)[text.length :])])
        runner.close(text)
        again, cached = runner.open(ids, straight(150), 0, name)
        assert cached == (149 if other == adapter else 0)
        if cached:
            (logits,) = runner.step([Work(again, ids[149:], [(149, 0)])])
            assert logits is not None
            assert_relative(logits, expected(ids, folders.get(adapter), 16), TOLERANCE)
        runner.close(again)


def test_pages_count_the_prefix_when_a_text_has_one(folders) -> None:
    runner = with_adapters(folders)
    assert [runner.pages_for(60, name) for name in ADAPTERS] == [1, 1, 1, 1, 3]


def test_the_model_is_as_it_was_when_a_step_with_an_adapter_raises(folders, monkeypatch) -> None:
    runner = with_adapters(folders)
    before = list(runner.model.state_dict())
    text, _ = runner.open([1, 2, 3], straight(3), 0, "one")
    prefixed, _ = runner.open([1, 2, 3], straight(3), 0, "long")
    monkeypatch.setattr(runner.model, "stack", None)
    for one in (text, prefixed):
        with pytest.raises(TypeError):
            runner.step([Work(one, [1, 2, 3], straight(3))])
    assert runner.model.prefix is None and list(runner.model.state_dict()) == before
    assert not any(module._forward_hooks for module in runner.model.modules())


def test_an_adapter_is_refused_when_its_name_is_no_name(folders, tmp_path) -> None:
    runner = with_adapters(folders)
    with pytest.raises(ValueError, match="the name of an adapter 'one' is taken"):
        runner.add_adapter("one", folders["one"])
    with pytest.raises(ValueError, match="the name of an adapter is empty"):
        runner.add_adapter("", folders["one"])
    with pytest.raises(ValueError, match="adapter 'three' is unknown: there are one, two, short"):
        runner.open([1], [(0, 0)], 0, "three")
