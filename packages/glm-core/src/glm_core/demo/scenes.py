"""What a scene of the demo is, and where scenes come from.

A package adds a scene by a class and one line in pyproject.toml::

    [project.entry-points."glm_lab.demo_scenes"]
    50-chat-about-a-picture = "cogvlm.demo:ChatAboutAPicture"

Scenes run in the order of their entry points' names. The class takes no arguments.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from glm_core.demo.page import Html, Section, paragraph
from glm_core.errors import MissingExtraError

ENTRY_POINT_GROUP = "glm_lab.demo_scenes"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneContext:
    """What a scene is given."""

    output_dir: Path
    """Folder of the page; a scene that leaves files makes a folder of its own name in it."""
    train_seconds: float
    """Time that a scene which trains may spend on it, in seconds."""
    model: str
    """Name or folder of the text model."""
    seed: int
    """Seed of everything random."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneResult:
    """What a scene has to show."""

    blocks: list[Html]
    """Pieces of the page, made by the functions of `glm_core.demo.page`."""
    data: dict[str, Any] = field(default_factory=dict)
    """The same as plain values, for ``--json``."""
    text: str = ""
    """The same in a few lines for the terminal."""


class Scene(Protocol):
    """One thing that the demo does."""

    title: str
    """Heading on the page."""

    def run(self, context: SceneContext) -> SceneResult:
        """Do it, and return what there is to show."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PlayedScene:
    """A scene that has run, or could not."""

    name: str
    """Name of the entry point."""
    section: Section
    """Its part of the page."""
    result: SceneResult | None
    """None where the scene was left out because a package or a model is missing."""
    seconds: float
    """How long it took."""


def find_scenes(only: Iterable[str] = ()) -> list[tuple[str, Scene]]:
    """The scenes of all installed packages, in order; `only` selects by name or part of one.

    Raises:
        ValueError: a word of `only` matches no scene.
    """
    # An editable install that is also on the path is listed twice: the name decides.
    found = {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    if not found:
        raise ValueError(
            "no demo scene is installed: the entry points of pyproject.toml are read at install "
            'time; run: pip install -e ".[dev]"'
        )
    words = list(only)
    for word in words:
        if not any(word in name for name in found):
            raise ValueError(f"no scene matches {word!r}; there are: {', '.join(sorted(found))}")
    chosen = [name for name in sorted(found) if not words or any(word in name for word in words)]
    return [(name, found[name].load()()) for name in chosen]


def play(name: str, scene: Scene, context: SceneContext) -> PlayedScene:
    """Run one scene; one that lacks an optional package says so on the page instead."""
    logger.info("== %s", scene.title)
    start = time.perf_counter()
    try:
        result = scene.run(context)
    except MissingExtraError as error:
        logger.warning("left out: %s", error)
        section = Section(title=scene.title, blocks=[paragraph(f"Left out: {error}")], seconds=0.0)
        return PlayedScene(name=name, section=section, result=None, seconds=0.0)
    seconds = time.perf_counter() - start
    section = Section(title=scene.title, blocks=result.blocks, seconds=seconds)
    return PlayedScene(name=name, section=section, result=result, seconds=seconds)
