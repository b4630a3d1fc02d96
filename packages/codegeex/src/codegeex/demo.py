"""The scene of the code model: a function completed, holes filled, and how fast."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codegeex.hole import Hole, Mode
from glm_core.demo.page import Html, facts, listing, paragraph
from glm_core.demo.scenes import SceneContext, SceneResult

if TYPE_CHECKING:
    from codegeex.complete import Completer
    from glm_core.infer.engine import Engine

MODEL = "nano-code"
MOST_TOKENS = 48
_SPEED_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Shown:
    """A hole, and what it shows."""

    about: str
    hole: Hole


HOLES = (
    Shown(
        "A function goes on from its head.",
        Hole(
            prefix="import json\n\n\ndef load_settings(path):\n"
            '    """Read settings from a JSON file."""\n    ',
            language="python",
        ),
    ),
    Shown(
        "A line is filled: what stands behind it tells what it must make.",
        Hole(
            prefix="def count_words(text):\n    counts = {}\n"
            "    for word in text.split():\n        ",
            suffix="\n    return counts\n",
            language="python",
            mode=Mode.line,
        ),
    ),
    Shown(
        "A hole inside a line.",
        Hole(
            prefix="class Point:\n    def __init__(self, x, y):\n        self.x = x\n"
            '        self.y = y\n\n    def __repr__(self):\n        return f"Point({self.',
            suffix='}, {self.y})"\n',
            language="python",
            mode=Mode.line,
        ),
    ),
)


class CompleteCode:
    """Holes in Python files, filled as an editor would ask."""

    title = "Complete code"

    def __init__(self, model: str = MODEL) -> None:
        self._model = model

    def run(self, context: SceneContext) -> SceneResult:
        """Fill every hole greedily, then write one long answer for the speed."""
        from codegeex.complete import Completer
        from codegeex.fim import format_of_model
        from glm_core.checkpoint.loading import load_model
        from glm_core.infer.engine import Engine

        model, tokenizer = load_model(self._model)
        format = format_of_model(self._model, tokenizer)
        size = sum(parameter.numel() for parameter in model.parameters())
        with Engine(model, tokenizer) as engine:
            completer = Completer(engine, format, self._model)
            written = [_complete(completer, shown.hole) for shown in HOLES]
            speed = _tokens_per_second(completer)
            named = _describe(engine, self._model, size, speed)
        blocks: list[Html] = [
            facts(named),
            paragraph(
                "The model sees the file before and behind the cursor and writes what is marked. "
                "It is small: it knows how Python files look, and little of what they mean."
            ),
            *(_shown(one, text) for one, text in zip(HOLES, written, strict=True)),
        ]
        return SceneResult(
            blocks=blocks,
            data={
                "completions": [
                    {"prefix": one.hole.prefix, "suffix": one.hole.suffix, "text": text}
                    for one, text in zip(HOLES, written, strict=True)
                ],
                "tokens_per_second": round(speed, 1),
            },
            text="\n\n".join(
                f"{one.hole.prefix}[{text}]{one.hole.suffix.rstrip()}"
                for one, text in zip(HOLES, written, strict=True)
            )
            + f"\n\n{speed:,.0f} tokens per second",
        )


def _complete(completer: Completer, hole: Hole) -> str:
    from codegeex.complete import Options

    choices = completer.submit(hole, Options(max_new_tokens=MOST_TOKENS)).outcome().choices
    return choices[0].text if choices else ""


def _tokens_per_second(completer: Completer) -> float:
    """Of one answer that no rule ends, the prompt's reading left out."""
    from codegeex.complete import Options

    options = Options(max_new_tokens=_SPEED_TOKENS, raw=True, temperature=1.0)
    begin = time.perf_counter()
    done = completer.submit(HOLES[0].hole, options).outcome()
    seconds = time.perf_counter() - begin - done.timings.first_token_s
    return max(done.usage.completion - 1, 1) / max(seconds, 1e-6)


def _describe(engine: Engine, name: str, size: int, speed: float) -> list[tuple[str, str]]:
    config = engine.model.config
    return [
        ("model", name),
        ("parameters", f"{size / 1e6:.1f} M"),
        ("layers × width", f"{config.num_layers} × {config.hidden_size}"),
        ("tokens per second", f"{speed:,.0f}"),
    ]


def _shown(one: Shown, text: str) -> Html:
    pieces = [(one.hole.prefix, False), (text, True), (one.hole.suffix.rstrip(), False)]
    return listing(pieces, one.about)
