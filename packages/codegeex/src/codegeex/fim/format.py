"""What a fill-in-the-middle format is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from glm_core.tokenizer.specials import EOS

PREFIX, SUFFIX, MIDDLE = "<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"
SENTINELS = (PREFIX, SUFFIX, MIDDLE)
"""Special tokens that mark the parts of a hole, as CodeGeeX4 and GLM-4.5 call them."""


class Slot(StrEnum):
    """A place in a format where something of the hole goes."""

    references = "references"
    """The other files, each as the format's `reference` says."""
    path = "path"
    path_line = "path_line"
    """The path as a comment of its own line; nothing where the path is unknown."""
    language = "language"
    """The language's name; nothing where it is unknown."""
    mode = "mode"
    """LINE or BLOCK."""
    prefix = "prefix"
    suffix = "suffix"
    text = "text"
    """Contents of a reference."""


@dataclass(frozen=True)
class Mark:
    """A special token, by name."""

    name: str


Part = str | Mark | Slot
"""Words as they are, a special token, or something of the hole."""


@dataclass(frozen=True, kw_only=True)
class FimFormat:
    """How a hole is written; the answer follows, and ends with the end of the text."""

    name: str
    about: str
    """One line for people."""
    parts: tuple[Part, ...]
    """The hole, in order."""
    reference: tuple[Part, ...] = ()
    """Another file; its path and text are the only slots."""
    stops: tuple[str, ...] = (EOS, *SENTINELS)
    """Special tokens that end the answer; those that a tokenizer does not have are skipped."""
    template: str = ""
    """As a template of Ollama, which plugins look at for `.Suffix`."""

    @property
    def suffix_first(self) -> bool:
        """Whether the suffix stands before the prefix, so that typing changes only the end."""
        return self.parts.index(Slot.suffix) < self.parts.index(Slot.prefix)

    @property
    def marks(self) -> tuple[str, ...]:
        """Special tokens that the format needs."""
        return tuple(part.name for part in (*self.parts, *self.reference) if isinstance(part, Mark))
