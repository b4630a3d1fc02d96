"""What an editor asks for."""

from __future__ import annotations

from dataclasses import dataclass

from codegeex.hole import Hole
from codegeex.lsp.documents import Document


@dataclass(frozen=True, eq=False)
class Question:
    """A completion that is wanted."""

    hole: Hole
    document: Document
    line: int
    """Of the cursor."""
    root: str
    """Of the repository that the document is in; empty if it is in none."""
    client: str
    """What it asked for before is not wanted any more."""
    is_by_hand: bool = False
    """Whether one asked for it and did not only type: there are more to choose from."""
