"""Baselines of blank filling that only count words: what a model has to be better than."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from glm_core.evaluate.blanks import Accuracy
from glm_core.evaluate.excerpts import UNIT, Question

Key = tuple[str, ...]


class WordCounts:
    """Which word stands most often between, after or anywhere, for the contexts asked about.

    Only the contexts of the questions are counted, so that memory does not grow with the corpus.

    Args:
        questions: one-word gaps.
        texts: training documents.
    """

    def __init__(self, questions: Sequence[Question], texts: Iterable[str]) -> None:
        self._wanted = {key for question in questions for key in _keys(question)}
        self._counts: dict[Key, Counter[str]] = defaultdict(Counter)
        self._unigrams: Counter[str] = Counter()
        for text in texts:
            self._count(UNIT.findall(text))
        words = (word for word, _ in self._unigrams.most_common() if word.isalpha())
        self.most_frequent = next(words, "")

    @property
    def num_words(self) -> int:
        """Distinct words in the training text."""
        return sum(word.isalpha() for word in self._unigrams)

    def most_frequent_accuracy(self, questions: Sequence[Question]) -> Accuracy:
        """Always answers the most frequent word."""
        right = sum(question.answer == self.most_frequent for question in questions)
        return Accuracy(right, len(questions))

    def context_accuracy(self, questions: Sequence[Question]) -> Accuracy:
        """Answers what stood most often between the two neighbours, else after the left one(s)."""
        right = sum(self._guess(question) == question.answer for question in questions)
        return Accuracy(right, len(questions))

    def _guess(self, question: Question) -> str:
        for key in _keys(question):
            if key in self._counts:
                return self._counts[key].most_common(1)[0][0]
        return self.most_frequent

    def _count(self, units: list[str]) -> None:
        self._unigrams.update(units)
        wanted, counts = self._wanted, self._counts
        padded = ["", "", *units, ""]
        for before, left, word, right in zip(
            padded, padded[1:], padded[2:], padded[3:], strict=False
        ):
            if word.isalpha():
                for key in (("between", left, right), ("after", before, left), ("after", left)):
                    if key in wanted:
                        counts[key][word] += 1


def _keys(question: Question) -> list[Key]:
    """The contexts of a gap, most telling first."""
    left = ["", "", *UNIT.findall(question.left)][-2:]
    right = next(iter(UNIT.findall(question.right)), "")
    keys: list[Key] = [("after", *left), ("after", left[1])]
    # Without anything to its right the gap is a last word.
    return [("between", left[1], right), *keys] if question.right else keys
