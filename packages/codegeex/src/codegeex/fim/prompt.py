"""A hole, written for a model.

What does not fit is left out in this order: references from the far end, the end of the suffix,
the beginning of the prefix. Text far beyond what could fit is never read into tokens.

The prefix begins at one of a few fixed places of the file, and not at the last so many tokens, and
what it leaves to the others changes in steps too: while somebody types at its end all before it
stays as it is, and need not be read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codegeex.fim.format import FimFormat, Mark, Part, Slot
from codegeex.hole import Hole, Reference
from codegeex.languages import LANGUAGES, language_of_path
from glm_core.tokenizer.protocol import Tokenizer

SUFFIX_SHARE = 1 / 4
"""Most of the room that the suffix may take from a prefix that could use it."""
REFERENCE_SHARE = 1 / 2
"""Most of the room that references may take."""
_CHARS_PER_TOKEN = 8
"""More than code has: what is longer is cut before it is read into tokens."""
_STEPS = 8
"""A prefix that has become too long is cut by this part of its room, and grows by it."""
_LEAST = 16
"""Tokens that the texts of a hole need."""


def fim_ids(hole: Hole, format: FimFormat, tokenizer: Tokenizer, limit: int) -> list[int]:
    """Returns the prompt's tokens, at most `limit`.

    Raises:
        ValueError: the limit leaves no room, or the tokenizer lacks one of the format's tokens.
    """
    frame = [_known(part, hole, format, tokenizer) for part in format.parts]
    room = limit - sum(len(ids) for ids in frame if not isinstance(ids, Slot))
    if room < _LEAST:
        raise ValueError(
            f"a prompt of {limit} tokens has no room for a hole in the format {format.name}: ask "
            f"for fewer new tokens, or use a model with a context of {limit + _LEAST - room} or "
            "more"
        )
    suffix = tokenizer.encode(hole.suffix[: room * _CHARS_PER_TOKEN]) if hole.suffix else []
    prefix = prefix_ids(hole.prefix, tokenizer, room - min(len(suffix), int(room * SUFFIX_SHARE)))
    step = max(1, room // _STEPS)
    rest = max(room - -(-len(prefix) // step) * step, int(room * SUFFIX_SHARE))
    suffix = suffix[: min(rest, room - len(prefix))]
    rest = max(0, rest - len(suffix))
    texts = {
        Slot.prefix: prefix,
        Slot.suffix: suffix,
        Slot.references: _references(
            hole.references,
            format,
            tokenizer,
            min(rest, room - len(prefix) - len(suffix), int(limit * REFERENCE_SHARE)),
        ),
    }
    return [token for ids in frame for token in (texts[ids] if isinstance(ids, Slot) else ids)]


def prefix_ids(text: str, tokenizer: Tokenizer, room: int) -> list[int]:
    """Returns the tokens of a text's end, at most `room`; see above for where they begin."""
    if not text:
        return []
    step = max(1, room * _CHARS_PER_TOKEN // 2 // _STEPS)  # code has about 4 characters a token
    begin = max(0, len(text) - room * _CHARS_PER_TOKEN)
    anchor = -(-begin // step)
    while True:
        start = _line_start(text, anchor * step)
        ids = tokenizer.encode(text[start:])
        if len(ids) <= room:
            return ids
        excess = (len(ids) - room) * (len(text) - start) / len(ids)
        anchor += max(1, int(excess / step))
        if anchor * step >= len(text):  # one line, longer than the room
            return ids[-room:]


def path_line(path: str, language: str) -> str:
    """Returns the comment that tells a file's path; empty where the path is unknown."""
    if not path:
        return ""
    known = LANGUAGES.get(language) or language_of_path(path)
    comment = (known.line_comment if known else "") or "#"
    return f"{comment} {' '.join(path.split())}\n"


def _line_start(text: str, offset: int) -> int:
    """Returns where the first whole line from `offset` on begins; `offset` where none does."""
    if offset == 0:
        return 0
    found = text.find("\n", offset - 1)
    return found + 1 if 0 <= found < len(text) - 1 else offset


def _known(part: Part, hole: Hole, format: FimFormat, tokenizer: Tokenizer) -> list[int] | Slot:
    """Returns the tokens of a part, or the slot that is filled last, by what room there is."""
    if isinstance(part, Mark):
        return [_mark_id(part, format, tokenizer)]
    if part in (Slot.prefix, Slot.suffix, Slot.references):
        assert isinstance(part, Slot)
        return part
    text = _word(part, hole.path, hole.language, hole.mode) if isinstance(part, Slot) else part
    return tokenizer.encode(text) if text else []


def _word(slot: Slot, path: str, language: str, mode: str = "") -> str:
    """Returns what a short slot says."""
    if slot is Slot.path:
        return " ".join(path.split())
    if slot is Slot.path_line:
        return path_line(path, language)
    if slot is Slot.language:
        return LANGUAGES[language].name if language in LANGUAGES else ""
    assert slot is Slot.mode
    return mode.upper()


def _references(
    references: Sequence[Reference], format: FimFormat, tokenizer: Tokenizer, room: int
) -> list[int]:
    """Returns the tokens of as many references as fit, the last ones first of all."""
    taken: list[list[int]] = []
    for reference in reversed(references):
        ids = list(_reference(reference, format, tokenizer, room))
        if not ids or len(ids) > room:
            break
        taken.append(ids)
        room -= len(ids)
    return [token for ids in reversed(taken) for token in ids]


def _reference(
    reference: Reference, format: FimFormat, tokenizer: Tokenizer, room: int
) -> Iterable[int]:
    for part in format.reference:
        if isinstance(part, Mark):
            yield _mark_id(part, format, tokenizer)
            continue
        text = part
        if part is Slot.text:
            text = reference.text[: room * _CHARS_PER_TOKEN]
        elif isinstance(part, Slot):
            text = _word(part, reference.path, "")
        if text:
            yield from tokenizer.encode(text)


def _mark_id(mark: Mark, format: FimFormat, tokenizer: Tokenizer) -> int:
    if not tokenizer.has(mark.name):
        raise ValueError(
            f"the model's tokenizer has no {mark.name}, which the fim format {format.name} needs: "
            f"choose another format, or another model"
        )
    return tokenizer.token_id(mark.name)
