"""What a model is asked for a document.

Imports torch: what an editor's first messages need does not import this.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from dataclasses import replace

from codegeex.complete import Completer, Options, Pending
from codegeex.hole import Hole
from codegeex.lsp.documents import Documents
from codegeex.lsp.neighbours import Neighbours
from codegeex.lsp.question import Question
from codegeex.lsp.settings import Settings
from glm_core.infer.engine import RequestCancelled

_CONTEXT_SHARE = 4
"""Other files may take one part in so many of what the model can read."""
_TOP_P = 0.9
"""Of all candidates but the first."""
_LINE_END = re.compile(r"\r\n|\r|\n")


class Asker:
    """Asks one model for one editor.

    Args:
        completer: the model.
        documents: the open ones.
    """

    def __init__(self, completer: Completer, documents: Documents) -> None:
        self._completer = completer
        tokenizer = completer.tokenizer
        self._neighbours = Neighbours(
            documents,
            completer.context // _CONTEXT_SHARE,
            lambda text: len(tokenizer.encode(text)),
        )
        self._newest: dict[str, Question] = {}

    async def texts(self, question: Question, settings: Settings) -> list[str]:
        """Returns texts for a hole, the best first; none where a newer question took its place.

        Raises:
            ValueError: the hole can never be completed.
            EngineError: there is no answer.
        """
        self._newest[question.client] = question
        hole = question.hole
        if settings.context:
            found = await self._neighbours.references(
                hole, question.document, question.line, question.root
            )
            hole = replace(hole, references=found)
        if self._newest[question.client] is not question:
            return []  # asked now, it would take the place of the newer one
        try:
            return await self._asked(hole, question, settings)
        except RequestCancelled:
            return []

    def close(self) -> None:
        """Stops looking after files."""
        self._neighbours.close()

    async def _asked(self, hole: Hole, question: Question, settings: Settings) -> list[str]:
        completer = self._completer
        options = Options(
            max_new_tokens=min(settings.max_tokens, completer.context // 2),
            time_limit_s=settings.time_limit or None,
            client=question.client,
            newest_wins=True,
        )
        asked: list[Pending] = []
        try:
            asked.append(completer.submit(hole, options))  # the most probable text
            if not question.is_by_hand and settings.max_lines:
                return _worth([await _first_lines(asked[0], settings.max_lines)])
            if question.is_by_hand and settings.candidates > 1:
                more = replace(
                    options,
                    newest_wins=False,
                    num_choices=settings.candidates - 1,
                    temperature=settings.temperature,
                    top_p=_TOP_P,
                )
                asked.append(completer.submit(hole, more))
            completed = await asyncio.gather(*(pending.aoutcome() for pending in asked))
        finally:
            for pending in asked:
                pending.cancel()
        texts = [choice.text for one in completed for choice in one.choices]
        return _worth([_cut(text, settings.max_lines) for text in texts])


async def _first_lines(pending: Pending, most: int) -> str:
    """Returns a completion's first lines; when it has them it is not gone on with."""
    text = ""
    async with aclosing(pending.__aiter__()) as pieces:
        async for piece in pieces:
            text += piece.text
            if len(_LINE_END.findall(text)) >= most:
                break
    return _cut(text, most)


def _cut(text: str, most: int) -> str:
    ends = list(_LINE_END.finditer(text))
    return text[: ends[most - 1].start()] if 0 < most <= len(ends) else text


def _worth(texts: list[str]) -> list[str]:
    """Returns each text once, and none that only moves the cursor."""
    return [text for text in dict.fromkeys(texts) if text.strip()]
