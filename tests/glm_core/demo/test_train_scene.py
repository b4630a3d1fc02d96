from __future__ import annotations

from dataclasses import replace

import pytest

from glm_core.demo import train_scene
from glm_core.demo.scenes import SceneContext


@pytest.fixture
def small(monkeypatch):
    """The scene with a model and a corpus that take a second."""
    original = train_scene._config

    def config(folder, seed):
        full = original(folder, seed)
        sizes = {"hidden_size": 32, "num_layers": 1, "head_dim": 16, "rotary_dim": 16}
        model = replace(full.model, vocab_size=400, **sizes)
        return replace(
            full,
            model=model,
            data=replace(full.data, vocab_size=400, seq_length=64),
            trainer=replace(full.trainer, micro_batch_size=4, global_batch_size=4, eval_batches=1),
        )

    def topics(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(30):
            text = f"Topic {number}. The with statement wraps a block of {number} lines. " * 12
            (folder / f"{number}.txt").write_text(text)
        return folder

    monkeypatch.setattr(train_scene, "_config", config)
    monkeypatch.setattr(train_scene, "write_corpus", topics)


def test_loss_falls_and_is_drawn_when_the_scene_runs(small, tmp_path):
    context = SceneContext(output_dir=tmp_path, train_seconds=0.5, model="unused", seed=1)
    result = train_scene.TrainLive().run(context)
    assert result.data["last_loss"] < result.data["first_loss"]
    assert result.data["steps"] >= 20
    assert any("<svg" in block for block in result.blocks)
    assert (tmp_path / "train-live" / "run" / "model" / "model.safetensors").is_file()
    again = train_scene.TrainLive().run(context)
    assert again.data["first_loss"] == pytest.approx(result.data["first_loss"])  # not a resume


def test_corpus_is_kept_when_it_is_already_there(tmp_path):
    folder = train_scene.write_corpus(tmp_path / "corpus")
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(times) > 50
    next(iter(times)).write_text("changed")
    train_scene.write_corpus(folder)
    changed = [path for path, at in times.items() if path.stat().st_mtime_ns != at]
    assert changed == [next(iter(times))]
