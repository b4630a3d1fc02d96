"""Blank filling: how often the greedy answer is exactly what was taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glm_core.evaluate.excerpts import Question
from glm_core.infer.blanks import Prompt
from glm_core.infer.layout import BlankSlot
from glm_core.infer.sampling import SamplingConfig
from glm_core.infer.text_generator import TextGenerator
from glm_core.progress import Progress
from glm_core.tokenizer.specials import MASK

MAX_ANSWER_TOKENS = 16
_TOKENS_PER_BATCH = 8192


@dataclass(frozen=True)
class Accuracy:
    """Right answers among questions."""

    right: int
    count: int

    @property
    def share(self) -> float:
        """Right answers per question; 0 without questions."""
        return self.right / self.count if self.count else 0.0


def fill_accuracy(generator: TextGenerator, questions: Sequence[Question]) -> Accuracy:
    """Fills a [MASK] in each question greedily; right is what equals the text taken out."""
    prompts = [question_prompt(generator, question) for question in questions]
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index].context_ids))
    config = SamplingConfig(max_new_tokens=MAX_ANSWER_TOKENS)
    progress = Progress("filling blanks", len(prompts), "blanks")
    right = 0
    while order:
        count = max(1, _TOKENS_PER_BATCH // len(prompts[order[0]].context_ids))
        rows, order = order[:count], order[count:]
        filled = generator.fill_prompts([prompts[row] for row in rows], config)
        for row, result in zip(rows, filled, strict=True):
            right += result.blanks[0].text.strip() == questions[row].answer
        progress.add(len(rows))
    return Accuracy(right, len(questions))


def question_prompt(generator: TextGenerator, question: Question) -> Prompt:
    """Makes the prompt of tokens, since the text may itself contain the characters [MASK].

    Only an excerpt that ends its document carries the end token, as in training.
    """
    tokenizer = generator.tokenizer
    left = [tokenizer.cls_id, *tokenizer.encode(question.left)]
    right = tokenizer.encode(question.right) if question.right else []
    end = [tokenizer.eos_id] if question.at_document_end else []
    return Prompt(
        text=f"{question.left} {MASK}{question.right}",
        pieces=(f"{question.left} ", question.right),
        context_ids=(*left, tokenizer.mask_id, *right, *end),
        slots=(BlankSlot(MASK, len(left)),),
    )
