from __future__ import annotations

from dataclasses import replace

import pytest

from glm_core.demo import train_scene
from glm_core.demo.scenes import SceneContext


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The scene with a model and a corpus that take a second."""
    original = train_scene._config
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(30):
        text = f"Topic {number}. The with statement wraps a block of {number} lines. " * 12
        (corpus / f"{number}.txt").write_text(text)

    def config(folder, seed):
        full = original(folder, seed)
        sizes = {"hidden_size": 32, "num_layers": 1, "head_dim": 16, "rotary_dim": 16}
        own = {"source": str(corpus), "cache_dir": str(tmp_path / "cache"), "vocab_size": 400}
        return replace(
            full,
            model=replace(full.model, vocab_size=400, **sizes),
            data=replace(full.data, seq_length=64, heldout_fraction=0.1, **own),
            trainer=replace(full.trainer, micro_batch_size=4, global_batch_size=4, eval_batches=1),
        )

    monkeypatch.setattr(train_scene, "_config", config)


def test_loss_falls_and_is_drawn_when_the_scene_runs(small, tmp_path):
    context = SceneContext(output_dir=tmp_path, train_seconds=0.5, model="unused", seed=1)
    result = train_scene.TrainLive().run(context)
    assert result.data["last_loss"] < result.data["first_loss"]
    assert result.data["steps"] >= 20
    assert any("<svg" in block for block in result.blocks)
    assert (tmp_path / "train-live" / "run" / "model" / "model.safetensors").is_file()
    again = train_scene.TrainLive().run(context)
    assert again.data["first_loss"] == pytest.approx(result.data["first_loss"])  # not a resume
