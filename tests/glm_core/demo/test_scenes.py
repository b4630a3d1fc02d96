from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from glm_core import cli
from glm_core.demo import page, scenes
from glm_core.errors import MissingExtraError


class Cheerful:
    title = "Says <hello>"

    def run(self, context):
        return scenes.SceneResult(
            blocks=[page.paragraph(f"seed {context.seed}")],
            data={"seed": context.seed},
            text="hello there",
        )


class Lacking:
    title = "Needs more"

    def run(self, context):
        raise MissingExtraError('cogvlm needs timm: pip install -e ".[cogvlm]"')


@pytest.fixture
def two_scenes(monkeypatch):
    """Two entry points of this file's classes, given in the wrong order."""
    points = [
        type("Point", (), {"name": name, "load": lambda self, c=c: c})()
        for name, c in (("60-lacking", Lacking), ("50-cheerful", Cheerful))
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)


def test_scenes_come_in_the_order_of_their_names_when_found(two_scenes):
    assert [name for name, _ in scenes.find_scenes()] == ["50-cheerful", "60-lacking"]
    assert [name for name, _ in scenes.find_scenes(["lack"])] == ["60-lacking"]


def test_choice_is_refused_when_no_scene_matches(two_scenes):
    with pytest.raises(ValueError, match="no scene matches 'fly'; there are: 50-cheerful, 60-lac"):
        scenes.find_scenes(["fly"])


def test_remedy_is_named_when_no_scene_is_installed(monkeypatch):
    monkeypatch.setattr(metadata, "entry_points", lambda group: [])
    with pytest.raises(ValueError, match='no demo scene is installed.*pip install -e ".\\[dev\\]"'):
        scenes.find_scenes()


def test_every_installed_scene_loads_when_found():
    for _, scene in scenes.find_scenes():
        assert scene.title
        assert callable(scene.run)


def test_page_tells_what_was_left_out_when_an_extra_is_missing(two_scenes, tmp_path, capsys):
    assert cli.main(["demo", "--output", str(tmp_path), "--seed", "7", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["scenes"]["50-cheerful"]["seed"] == 7
    assert result["scenes"]["60-lacking"] == {"left_out": True}
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Says &lt;hello&gt;" in text
    assert "Left out: cogvlm needs timm" in text
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_page_is_named_when_read_by_a_person(two_scenes, tmp_path, capsys):
    assert cli.main(["demo", "--output", str(tmp_path), "--scene", "cheerful"]) == 0
    out = capsys.readouterr().out
    assert "hello there" in out
    assert f"Page: {tmp_path / 'index.html'}" in out


def test_time_is_refused_when_it_is_not_positive(capsys):
    assert cli.main(["demo", "--seconds", "0"]) == 2
    assert "--seconds must be more than 0, got 0" in capsys.readouterr().err


def test_error_names_the_folder_when_it_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["demo", "--output", str(tmp_path / "file" / "page")]) == 2
    assert "file/page cannot be written" in capsys.readouterr().err
