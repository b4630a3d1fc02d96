"""What a model is given for a problem.

Source: THUDM/CodeGeeX codegeex/benchmark/utils.py and THUDM/CodeGeeX2 evaluation/utils.py.
"""

from __future__ import annotations

import re
from enum import StrEnum

from codegeex.evaluate.mask import mask
from codegeex.evaluate.problems import Problem
from codegeex.languages import LANGUAGES


class PromptStyle(StrEnum):
    """How a prompt is written."""

    stripped = "stripped"
    """Without white space around it and without a tag, as CodeGeeX2 was measured."""
    tagged = "tagged"
    """After the line that names the language, as CodeGeeX was trained."""
    plain = "plain"
    """As the file has it."""


def generation_prompt(problem: Problem, style: PromptStyle = PromptStyle.stripped) -> str:
    """Returns what a model goes on from; a prompt that is only a comment gets its declaration."""
    prompt = problem.prompt
    if problem.language == "rust" and not re.search(r"\bfn\s", mask(prompt, "rust")):
        prompt += problem.declaration
    if style is PromptStyle.stripped:
        return prompt.strip()
    if style is PromptStyle.tagged:
        return f"{LANGUAGES[problem.language].tag}\n{prompt}"
    return prompt


def translation_prompt(source: Problem, target: Problem) -> str:
    """Returns what a model goes on from to write the source's solution in the target's language."""
    solution = source.canonical_solution.rstrip()
    return (
        f"code translation\n{LANGUAGES[source.language].name}:\n{source.declaration}\n{solution}\n"
        f"{LANGUAGES[target.language].name}:\n{target.declaration}"
    )
