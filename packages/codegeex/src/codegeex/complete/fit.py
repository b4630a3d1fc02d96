"""Which rules a completion follows, by the place it is for."""

from __future__ import annotations

from collections.abc import Sequence

from codegeex.complete.line_endings import to_lf
from codegeex.complete.options import Options
from codegeex.complete.place import Place
from codegeex.complete.rules import (
    Block,
    Brackets,
    Following,
    MaxLines,
    MinIndent,
    OneLine,
    Repeats,
    RestOfLine,
    Rule,
    Words,
)
from codegeex.complete.shaper import Trim
from codegeex.complete.trims import Overlap, TrailingSpace
from codegeex.hole import Hole, Mode


def rules_for(hole: Hole, options: Options) -> tuple[Sequence[Rule], Sequence[Trim]]:
    """Returns what ends the completions of a hole, and what is done to their ends.

    Args:
        hole: its lines end with LF.
    """
    words = stop_words(options)
    if options.raw:
        return words, ()
    place = Place.of(hole)
    _ = place.wanted  # here, and not with the first token in the engine's thread
    rules: list[Rule] = [*words, Brackets(place), Following(place), Repeats(place.before)]
    if hole.mode is Mode.line or not place.takes_lines:
        rules.append(OneLine(may_begin_below=place.opens_block))
    else:
        rules += [Block(place), RestOfLine(place.after)]
    if options.max_lines:
        rules.append(MaxLines(options.max_lines))
    if options.min_indent:
        rules.append(MinIndent(options.min_indent))
    trims = (Brackets(place), Following(place), Overlap(place), TrailingSpace(place.after))
    return rules, trims


def stop_words(options: Options) -> list[Rule]:
    """Returns the rule of the user's own stop strings, if there are any."""
    return [Words(tuple(map(to_lf, options.stop)))] if options.stop else []
