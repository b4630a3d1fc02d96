"""What `codegeex bench editor` measures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from codegeex.bench.edits import Edit, standard_file, typing_session
from codegeex.complete.cursor import text_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is typed, and how it is asked."""

    model: str = "nano-code"
    """Name or folder."""
    edits: int = 200
    """Keystrokes of a round."""
    rounds: int = 3
    new_tokens: int = 16
    """Longest answer."""
    seed: int = 0
    """Of the places; every round has others."""
    file: Path | None = None
    """That is typed; one of the standard library otherwise."""
    threads: int = 2
    """Of each server's model; the client needs a little of the same processor."""
    context: int | None = None
    """Tokens that a prompt and its answer have; what the model has otherwise."""

    def __post_init__(self) -> None:
        for name in ("edits", "rounds", "new_tokens", "threads"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {value}: it must be at least 1")

    @cached_property
    def typed_file(self) -> Path:
        """The file that is typed."""
        return self.file or standard_file(self.seed)

    def session(self, number: int) -> list[Edit]:
        """The edits of a round; no two rounds have the same places.

        Raises:
            ValueError: the file is not there, or no text to type.
        """
        try:
            data = self.typed_file.read_bytes()
        except OSError as error:
            raise ValueError(
                f"--file {self.typed_file} cannot be read ({error.strerror or error})"
            ) from error
        text = text_of(data, str(self.typed_file))
        return typing_session(text, self.edits, self.seed * 1000 + number)
