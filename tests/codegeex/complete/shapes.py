"""What becomes of a model's text in a hole, without a model."""

from __future__ import annotations

from collections.abc import Iterable

from codegeex.complete.fit import rules_for
from codegeex.complete.options import Options
from codegeex.complete.shaper import Shaper
from codegeex.hole import Hole


def hole_of(marked: str, **fields: object) -> Hole:
    """A hole where `|` stands in a text."""
    prefix, _, suffix = marked.partition("|")
    return Hole(**{"prefix": prefix, "suffix": suffix, "language": "python"} | fields)  # type: ignore[arg-type]


def shaped(hole: Hole, pieces: Iterable[str], options: Options | None = None) -> Shaper:
    """The shaper of a text that came in pieces and ended by itself; never takes anything back."""
    rules, trims = rules_for(hole, options or Options())
    shaper, shown = Shaper(rules, trims), ""
    text = ""
    for piece in pieces:
        text += piece
        enough = shaper.push(piece)
        assert shaper.shown.startswith(shown)
        shown = shaper.shown
        if enough:
            break
    assert shaper.finish(text).startswith(shown)
    return shaper


def fits(marked: str, text: str, options: Options | None = None, **fields: object) -> str:
    """What is shown of a text in the hole where `|` stands."""
    return shaped(hole_of(marked, **fields), [text], options).shown
