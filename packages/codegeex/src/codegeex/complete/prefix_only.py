"""Prompts for models that were never taught to fill in: CodeGeeX-13B and CodeGeeX2."""

from __future__ import annotations

from codegeex.fim.prompt import prefix_ids
from codegeex.hole import Hole
from codegeex.languages import LANGUAGES, language_of_path
from glm_core.tokenizer.protocol import Tokenizer


def prefix_only_ids(hole: Hole, tokenizer: Tokenizer, room: int) -> list[int]:
    """Returns the tokens of the language's tag, with which these models' texts begin, and of the
    prefix; at most `room`.

    Raises:
        ValueError: the hole has no prefix, and its language is unknown.
    """
    known = LANGUAGES.get(hole.language) or language_of_path(hole.path)
    tag = tokenizer.encode(f"{known.tag}\n") if known else []
    if not tag and not hole.prefix:
        raise ValueError(
            "the prefix is empty, and this model was not taught to fill in: give it some text, or "
            "the language"
        )
    return [*tag, *prefix_ids(hole.prefix, tokenizer, max(room - len(tag), 1))]
