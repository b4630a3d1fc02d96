"""Scenes of the text model: blanks filled from both sides, and texts continued."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from glm_core.demo.page import Html, facts, paragraph, passage
from glm_core.demo.scenes import SceneContext, SceneResult

if TYPE_CHECKING:
    from glm_core.infer.blanks import Filled
    from glm_core.infer.text_generator import TextGenerator


@dataclass(frozen=True, slots=True)
class Cloze:
    """A text with blanks, and one answer that a person would give."""

    text: str
    answers: tuple[str, ...]


CLOZES = (
    Cloze("The [MASK] statement wraps a block.", ("with",)),
    Cloze("Return True if the string is empty, otherwise return [MASK].", ("False",)),
    Cloze("Raise a [MASK] if the key is not found in the dictionary.", ("KeyError",)),
    Cloze("Open the [MASK] for reading and return its contents as a string.", ("file",)),
    Cloze(
        "The first [MASK] is the name of the file, the second is the [MASK] in which it is opened.",
        ("argument", "mode"),
    ),
    Cloze(
        "This function takes a list of numbers. [sMASK] It raises ValueError if the list is empty.",
        ("It returns the largest of them.",),
    ),
)
PROMPTS = (
    "This function returns a list of",
    "If the file does not exist,",
    "The following example shows how to",
)


@lru_cache(maxsize=1)
def text_generator(model: str) -> TextGenerator:
    """The text model, loaded once for all scenes."""
    from glm_core.checkpoint.loading import load_model
    from glm_core.infer.text_generator import TextGenerator

    return TextGenerator(*load_model(model))


def pieces(filled: Filled) -> list[tuple[str, bool]]:
    """The filled text cut into (text, whether the model wrote it); spaces count as not written."""
    cut, at = [], 0
    for blank in filled.blanks:
        answer = blank.text.lstrip()
        start = blank.start + len(blank.text) - len(answer)
        cut += [(filled.text[at:start], False), (answer, True)]
        at = start + len(answer)
    return [*cut, (filled.text[at:], False)]


class FillBlanks:
    """Blanks in texts that the model has not been given an answer for."""

    title = "Fill the blanks"

    def run(self, context: SceneContext) -> SceneResult:
        """Fill every cloze by beam search."""
        from glm_core.infer.sampling import SamplingConfig

        generator = text_generator(context.model)
        sampling = SamplingConfig(max_new_tokens=24, min_new_tokens=1, num_beams=4)
        fills = [(cloze, generator.fill(cloze.text, sampling)) for cloze in CLOZES]
        blocks = [
            facts(_describe(generator, context.model)),
            paragraph(
                "The model sees the text on both sides of a blank and writes what is marked. "
                "Beneath each: how probable it found its answer, and what a person might write."
            ),
            *(passage(pieces(filled), _note(cloze, filled)) for cloze, filled in fills),
        ]
        return SceneResult(
            blocks=blocks,
            data={"fills": [_fill_data(filled) for _, filled in fills]},
            text="\n".join(f"  {_in_brackets(filled)}" for _, filled in fills),
        )


class ContinueText:
    """Texts that go on after a prompt."""

    title = "Continue a text"

    def run(self, context: SceneContext) -> SceneResult:
        """Continue every prompt, together in one batch."""
        from glm_core.infer.sampling import SamplingConfig

        generator = text_generator(context.model)
        sampling = SamplingConfig(
            max_new_tokens=48, temperature=0.7, top_p=0.9, repetition_penalty=1.1, seed=context.seed
        )
        start = time.perf_counter()
        completions = generator.generate(PROMPTS, sampling)
        tokens = sum(len(completion.tokens) for completion in completions)
        speed = tokens / (time.perf_counter() - start)
        blocks: list[Html] = [
            paragraph(
                f"Three prompts in one batch, temperature 0.7, top-p 0.9, seed {context.seed}: "
                f"{tokens} tokens at {speed:,.0f} tokens per second. The model is small and speaks "
                "the prose of Python documentation; it knows how such text sounds, not what is "
                "true."
            ),
            *(passage([(c.prompt, False), (c.text, True)]) for c in completions),
        ]
        return SceneResult(
            blocks=blocks,
            data={
                "continuations": [{"prompt": c.prompt, "text": c.text} for c in completions],
                "tokens_per_second": round(speed, 1),
            },
            text="\n".join(f"  {c.prompt}{c.text}" for c in completions),
        )


def _describe(generator: TextGenerator, name: str) -> list[tuple[str, str]]:
    config = generator.model.config
    size = sum(parameter.numel() for parameter in generator.model.parameters())
    return [
        ("model", name),
        ("parameters", f"{size / 1e6:.1f} M"),
        ("layers × width", f"{config.num_layers} × {config.hidden_size}"),
        ("vocabulary", f"{generator.tokenizer.vocab_size:,}"),
        ("context", f"{config.max_position_embeddings} tokens"),
    ]


def _note(cloze: Cloze, filled: Filled) -> str:
    odds = ", ".join(f"{math.exp(blank.logprob):.1%}" for blank in filled.blanks)
    return f"probability {odds} · a person might write: {', '.join(cloze.answers)}"


def _fill_data(filled: Filled) -> dict[str, Any]:
    return {
        "prompt": filled.prompt,
        "text": filled.text,
        "answers": [blank.text for blank in filled.blanks],
        "logprobs": [round(blank.logprob, 4) for blank in filled.blanks],
    }


def _in_brackets(filled: Filled) -> str:
    return "".join(f"[{text}]" if marked else text for text, marked in pieces(filled))
