from __future__ import annotations

import pytest

from codegeex.demo import HOLES, CompleteCode
from codegeex.fim import FORMATS, write_format
from codegeex.testing import tiny_code_model
from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.demo.scenes import SceneContext, find_scenes


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The scene, run with a tiny model of random weights."""
    folder = tmp_path_factory.mktemp("demo")
    save_pretrained(*tiny_code_model(), folder / "tiny")
    write_format(FORMATS["spm"], folder / "tiny")
    context = SceneContext(output_dir=folder, train_seconds=1.0, model="nano-text", seed=0)
    return CompleteCode(str(folder / "tiny")).run(context)


def test_every_hole_is_filled_when_the_scene_runs(result):
    assert len(result.data["completions"]) == len(HOLES)
    assert sum("<figcaption>" in block for block in result.blocks) == len(HOLES)
    assert all(one["text"] in result.text for one in result.data["completions"])


def test_speed_is_told_when_the_scene_runs(result):
    assert result.data["tokens_per_second"] > 0
    assert "tokens per second" in result.text


def test_scene_is_found_when_the_demo_looks_for_it():
    ((name, scene),) = find_scenes(["complete-code"])
    assert name == "40-complete-code" and scene.title == "Complete code"
