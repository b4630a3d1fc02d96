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
from codegeex.lsp.settings import Settings
from glm_core.infer.engine import RequestCancelled

_LINE_END = re.compile(r"\r\n|\r|\n")


async def texts_for(
    completer: Completer, hole: Hole, settings: Settings, client: str, is_by_hand: bool
) -> list[str]:
    """Returns texts for a hole, the best first; none where a newer request took its place.

    Args:
        client: what it asked for before is cancelled.
        is_by_hand: whether one asked for it and did not only type: there are more to choose from.

    Raises:
        ValueError: the hole can never be completed.
        EngineError: there is no answer.
    """
    options = Options(
        max_new_tokens=min(settings.max_tokens, completer.context // 2),
        time_limit_s=settings.time_limit or None,
        client=client,
        newest_wins=True,
    )
    asked: list[Pending] = []
    try:
        asked.append(completer.submit(hole, options))  # the most probable text
        if not is_by_hand and settings.max_lines:
            return _worth([await _first_lines(asked[0], settings.max_lines)])
        if is_by_hand and settings.candidates > 1:
            more = replace(
                options,
                newest_wins=False,
                num_choices=settings.candidates - 1,
                temperature=settings.temperature,
            )
            asked.append(completer.submit(hole, more))
        completed = await asyncio.gather(*(pending.aoutcome() for pending in asked))
    except RequestCancelled:
        return []
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
