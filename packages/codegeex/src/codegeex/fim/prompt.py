"""A hole, written for a model.

What does not fit is left out in this order: references from the far end, the end of the suffix,
the beginning of the prefix. Text far beyond what could fit is never read into tokens.

The prefix does not begin at the last so many tokens, but at one of the lines there that is found
again wherever what an editor shows of the file begins, and what it leaves to the others changes in
steps: while somebody types at its end all before it stays as it is, and need not be read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

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
_STEPS = 4
"""A prefix that has become too long is cut by at most this part of its room, and grows by it."""
_TYPED = 16
"""Tokens of the last line are counted by so many."""
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
    most = room - min(len(suffix), int(room * SUFFIX_SHARE))
    prefix = prefix_ids(hole.prefix, tokenizer, most)
    step = -(-most // _STEPS)
    rest = room - min(-(-len(prefix) // step) * step, most)
    suffix = suffix[:rest]
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
    near = text[-room * _CHARS_PER_TOKEN :]
    ids = tokenizer.encode(near)
    if len(ids) <= room and len(near) == len(text):
        return ids
    lines = _last_lines(near, tokenizer, room)
    # less than a step, so that what a prefix that was cut leaves to the others is always the same
    least = room - room * 3 // 4 // _STEPS
    while lines:
        num_far = sum(line.num_tokens >= least for line in lines)
        begin = min(range(max(num_far, 1)), key=lambda index: lines[index].checksum)
        ids = tokenizer.encode(near[lines[begin].start :])
        if len(ids) <= room:
            return ids
        lines = lines[begin + 1 :]
    return ids[-room:]  # one line, longer than the room


class _Line(NamedTuple):
    """A line of a text, from whose beginning on about so many tokens remain."""

    start: int
    num_tokens: int
    checksum: int


def _last_lines(text: str, tokenizer: Tokenizer, room: int) -> list[_Line]:
    """Returns the lines that fit together, the first one first.

    Tokens are counted line by line, those of the last one in steps: so a letter more or less there
    hardly ever changes where the others begin.
    """
    found: list[_Line] = []
    count, end = 0, len(text)
    while end >= 0:
        before = text.rfind("\n", 0, end)
        line = text[max(before, 0) : end]
        size = len(tokenizer.encode(line)) if line else 0
        count += size if found else -(-size // _TYPED) * _TYPED
        if count > room:
            break
        found.append(_Line(before + 1, count, crc32(line.encode("utf-8", "replace"))))
        end = before
    return found[::-1]


def path_line(path: str, language: str) -> str:
    """Returns the comment that tells a file's path; empty where the path is unknown."""
    if not path:
        return ""
    known = LANGUAGES.get(language) or language_of_path(path)
    comment = (known.line_comment if known else "") or "#"
    return f"{comment} {' '.join(path.split())}\n"


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
