"""``glm demo``: plays the scenes of every installed package, and writes a page of what they did."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_core.cli import emit, make_folder

if TYPE_CHECKING:
    from glm_core.demo.scenes import PlayedScene

HELP = "fill blanks, continue text and train live; writes a page with the results"
EXAMPLE = """\
glm demo
glm demo --seconds 20 --output /tmp/demo
glm demo --scene fill-blanks --scene continue-text"""

TITLE = "glm-lab: what works on this machine"
LEAD = (
    "Everything below was computed just now, on this machine, without a network: by the small "
    "models that come with the repository, and by one that was trained while you waited."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--output", default="outputs/demo", help="folder (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="time to train live (default: %(default)s)"
    )
    parser.add_argument(
        "--scene", action="append", default=[], metavar="NAME", help="play only this one (repeats)"
    )
    parser.add_argument("--model", default="nano-text", help="text model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Play the scenes, write the page, print where it is."""
    from glm_core.demo.scenes import SceneContext, find_scenes, play

    if not args.seconds > 0:
        raise ValueError(f"--seconds must be more than 0, got {args.seconds:g}")
    folder = Path(args.output)
    context = SceneContext(
        output_dir=folder, train_seconds=args.seconds, model=args.model, seed=args.seed
    )
    scenes = find_scenes(args.scene)
    make_folder(folder, "--output")  # before the work: a wrong path costs no minute
    played = []
    for name, scene in scenes:
        played.append(play(name, scene, context))
        result = played[-1].result
        if result is not None and not args.json:
            print(f"\n{scene.title}\n{result.text}\n", flush=True)
    page = write_page(folder / "index.html", played)
    emit(args, _summary(page, played), f"Page: {page}")
    return 0


def write_page(path: Path, played: list[PlayedScene]) -> Path:
    """Write the page in one piece: a reader never sees half of it."""
    from glm_core.demo.page import render

    text = render(TITLE, LEAD, [scene.section for scene in played], _footer())
    draft = path.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return path


def _summary(page: Path, played: list[PlayedScene]) -> dict[str, Any]:
    scenes = {
        scene.name: {"seconds": round(scene.seconds, 2), **scene.result.data}
        if scene.result
        else {"left_out": True}
        for scene in played
    }
    return {"page": str(page), "scenes": scenes}


def _footer() -> str:
    import torch

    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return (
        f"Written by glm demo, {now}. Python {platform.python_version()}, torch "
        f"{torch.__version__}, {platform.machine()}, {os.cpu_count()} cores."
    )
