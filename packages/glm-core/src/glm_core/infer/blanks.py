"""Prompts with blanks: from text to context, and from answers back to text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from glm_core.infer.layout import BlankSlot, Layout
from glm_core.tokenizer.prompt import encode_prompt
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import BLANK_TOKENS, GMASK, MASK

_MARKER = re.compile("|".join(re.escape(name) for name in BLANK_TOKENS))
_LOOKS_LIKE_MARKER = re.compile(r"\[(?:[a-z]{0,2}mask)\]", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """A prompt, ready for the model."""

    text: str
    """As the user wrote it."""
    pieces: tuple[str, ...]
    """The text around the blanks: one piece more than there are blanks."""
    context_ids: tuple[int, ...]
    """The context with its frame; its length is the number of columns it takes."""
    slots: tuple[BlankSlot, ...]
    """The blanks, left to right."""


@dataclass(frozen=True)
class FilledBlank:
    """One blank and what the model put there."""

    marker: str
    """[MASK], [sMASK] or [gMASK]; empty for the continuation of a causal model."""
    text: str
    tokens: list[int]
    logprob: float
    """Sum of the tokens' log-probabilities and of the end's, in nats, before any sampling rule."""
    finish_reason: str
    """stop_token, stop_string, max_new_tokens or context (the model's context is full)."""
    start: int
    """Where `text` begins in the filled text, in characters."""


@dataclass(frozen=True)
class Filled:
    """A prompt with its blanks filled."""

    prompt: str
    text: str
    blanks: list[FilledBlank]


def has_marker(text: str) -> bool:
    """Returns whether a prompt names a blank."""
    return _MARKER.search(text) is not None


def blank_prompt(text: str, tokenizer: Tokenizer, layout: Layout) -> Prompt:
    """Reads a prompt whose literal [MASK], [sMASK] and [gMASK] are blanks.

    Without any marker the text is continued.

    Raises:
        ValueError: the prompt is empty, a marker is misspelt or unknown to the tokenizer, or the
            model has no blanks.
    """
    markers = _MARKER.findall(text)
    check_spelling(text)
    if not markers:
        return continuation_prompt(text, tokenizer, layout)
    if not layout.has_blanks:
        raise ValueError(
            f"the prompt has a blank {markers[0]} but this model is causal and cannot look at what "
            "follows a blank: remove the marker, or use a model with blanks such as nano-text"
        )
    for marker in markers:
        _marker_id(tokenizer, marker)
    if text.rstrip().endswith(markers[-1]):
        text = text.rstrip()  # a line break after the last blank is no part of the text
    ids = layout.frame(encode_prompt(tokenizer, text), tokenizer)
    blank_ids = {tokenizer.token_id(marker) for marker in markers}
    columns = [column for column, token in enumerate(ids) if token in blank_ids]
    slots = tuple(map(BlankSlot, markers, columns))
    return Prompt(text, tuple(_MARKER.split(text)), tuple(ids), slots)


def continuation_prompt(text: str, tokenizer: Tokenizer, layout: Layout) -> Prompt:
    """Makes a prompt of plain text to be continued; the text cannot name a special token.

    Raises:
        ValueError: the text is empty.
    """
    if not text.strip():
        raise ValueError(
            "the prompt is empty: give it some text"
            + (", or [gMASK] alone to write from nothing" if layout.has_blanks else "")
        )
    if not layout.has_blanks:
        ids = layout.frame(tokenizer.encode(text), tokenizer)
        return Prompt(text, (text, ""), tuple(ids), (BlankSlot("", -1),))
    text_ids = [*tokenizer.encode(tokenizer.before_blank(text)), _marker_id(tokenizer, GMASK)]
    ids = layout.frame(text_ids, tokenizer)
    return Prompt(text, (text, ""), tuple(ids), (BlankSlot(GMASK, ids.index(text_ids[-1])),))


def infill_prompt(before: str, behind: str, tokenizer: Tokenizer, layout: Layout) -> Prompt:
    """Makes a prompt of two plain texts with a [MASK] between them.

    Raises:
        ValueError: both texts are empty, or the model has no blanks.
    """
    if not layout.has_blanks:
        raise ValueError("this model is causal and cannot look at what follows a blank")
    if not (before + behind).strip():
        raise ValueError("the texts around the blank are empty: give it some text")
    kept = tokenizer.before_blank(before)
    mask_id = _marker_id(tokenizer, MASK)
    text_ids = [*(tokenizer.encode(kept) if kept else []), mask_id, *tokenizer.encode(behind)]
    ids = layout.frame(text_ids, tokenizer)
    return Prompt(before, (before, behind), tuple(ids), (BlankSlot(MASK, ids.index(mask_id)),))


def ids_prompt(ids: Sequence[int], tokenizer: Tokenizer, layout: Layout) -> Prompt:
    """Makes a prompt of a whole context, ready but for the tokens that open the answer.

    Raises:
        ValueError: there is no token, an id is outside the vocabulary, or a model with blanks is
            given none.
    """
    outside = [token for token in ids if not 0 <= token < tokenizer.vocab_size]
    if not ids or outside:
        fault = f"holds the id {outside[0]}" if outside else "is empty"
        raise ValueError(
            f"the context {fault}: it must hold ids between 0 and {tokenizer.vocab_size - 1}"
        )
    if not layout.has_blanks:
        return Prompt("", ("", ""), tuple(ids), (BlankSlot("", -1),))
    markers = {tokenizer.token_id(name): name for name in BLANK_TOKENS if tokenizer.has(name)}
    columns = [column for column, token in enumerate(ids) if token in markers]
    if not columns:
        raise ValueError(
            f"the context holds no blank to answer in: put the id of {GMASK} at its end"
        )
    slot = BlankSlot(markers[ids[columns[-1]]], columns[-1])
    return Prompt("", ("", ""), tuple(ids), (slot,))


def check_room(prompt: Prompt, opening_len: int, limit: int) -> None:
    """Checks that a prompt and a shortest answer for each blank fit into the context.

    Args:
        opening_len: tokens that open each answer.
        limit: tokens the model can hold, `max_position_embeddings`.

    Raises:
        ValueError: they do not.
    """
    length = len(prompt.context_ids)
    if length > limit:
        raise ValueError(
            f"the prompt has {length} tokens but the model's context holds {limit}: "
            f"shorten it by at least {length - limit} tokens"
        )
    needed = length + len(prompt.slots) * (opening_len + 1)
    if needed > limit:
        raise ValueError(
            f"there is no room for an answer: the prompt has {length} tokens, its "
            f"{len(prompt.slots)} blank(s) need at least {needed - length} more, and the model's "
            f"context holds {limit}; shorten the prompt by at least {needed - limit} tokens"
        )


def join_blanks(prompt: Prompt, answers: list[str]) -> tuple[str, list[int]]:
    """Puts answers into their blanks.

    An answer that brings its own space replaces the one that the user wrote before the marker.

    Returns:
        The filled text, and where each answer begins in it.
    """
    text, starts = "", []
    for piece, answer in zip_longest(prompt.pieces, answers):
        text += piece
        if answer is None:
            continue
        if answer.startswith(" "):
            text = text.removesuffix(" ")
        starts.append(len(text))
        text += answer
    return text, starts


def _marker_id(tokenizer: Tokenizer, marker: str) -> int:
    try:
        return tokenizer.token_id(marker)
    except ValueError as error:
        raise ValueError(
            f"the blank {marker} cannot be filled: the tokenizer has no such token ({error})"
        ) from error


def check_spelling(text: str) -> None:
    """Checks that what looks like a marker is one.

    Raises:
        ValueError: it is not, for example [mask] or [tMASK].
    """
    for word in _LOOKS_LIKE_MARKER.findall(text):
        if word not in BLANK_TOKENS:
            raise ValueError(
                f"unknown marker {word}: the blanks are {', '.join(BLANK_TOKENS)}, "
                "written exactly so"
            )
