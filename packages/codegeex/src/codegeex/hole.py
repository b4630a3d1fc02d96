"""A hole in a file: what a completion is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How much is wanted."""

    line = "line"
    """The rest of one line."""
    block = "block"
    """As much as belongs there."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Another file, or a part of one, that may help."""

    path: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A place in a file where text is wanted, and what is known around it.

    Everything here is text: nothing in it can name a special token.
    """

    prefix: str
    """The file before the cursor."""
    suffix: str = ""
    """The file behind the cursor."""
    path: str = ""
    """Of the file, relative to its repository; empty if it has none."""
    language: str = ""
    """A key of `codegeex.languages.LANGUAGES`; empty where it is unknown."""
    mode: Mode = Mode.block
    references: tuple[Reference, ...] = ()
    """The most useful last, which is nearest to the hole."""
