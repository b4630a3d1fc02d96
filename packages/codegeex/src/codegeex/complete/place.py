"""What rules must know of the place of a hole."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from codegeex.complete.scan import OPENER_OF, Scanned, Syntax, scan, syntax_of
from codegeex.hole import Hole
from codegeex.languages import LANGUAGES, Language, language_of_path

_WINDOW = 20_000
"""Characters on each side in which brackets are paired."""
_PUNCTUATION = frozenset(")]}>\"'`;:, \t")
"""Of this alone the rest of a line can be, and several lines may still be wanted before it."""
_TAB = 4


def indent_of(line: str) -> int:
    """Returns how far a line is indented, in columns."""
    space = line[: len(line) - len(line.lstrip(" \t"))]
    return len(space.expandtabs(_TAB))


@dataclass(frozen=True)
class Place:
    """The lines around a hole, whose texts end their lines with LF."""

    prefix: str
    suffix: str
    language: Language | None = None

    @classmethod
    def of(cls, hole: Hole) -> Place:
        """Returns the place of a hole."""
        language = LANGUAGES.get(hole.language) or language_of_path(hole.path)
        return cls(hole.prefix, hole.suffix, language)

    @cached_property
    def before(self) -> str:
        """The cursor's line before it."""
        return self.prefix[self.prefix.rfind("\n") + 1 :]

    @cached_property
    def after(self) -> str:
        """The cursor's line behind it."""
        return self.suffix.partition("\n")[0]

    @cached_property
    def following(self) -> str:
        """The next line that is not blank, its end stripped; empty if there is none."""
        begin = self.suffix.find("\n") + 1
        while begin:
            end = self.suffix.find("\n", begin)
            line = self.suffix[begin : len(self.suffix) if end < 0 else end].rstrip()
            if line:
                return line
            begin = end + 1
        return ""

    @cached_property
    def syntax(self) -> Syntax:
        """Of the language."""
        return syntax_of(self.language)

    @cached_property
    def scanned(self) -> Scanned:
        """What the file leaves open at the cursor."""
        return scan(_last_lines(self.prefix, _WINDOW), self.syntax)

    @cached_property
    def wanted(self) -> tuple[str, ...]:
        """What is open at the cursor and not closed behind it, the innermost first."""
        window = self.suffix[:_WINDOW]
        closed = [what for _, what in scan(window, self.syntax, self.scanned.inside).unmatched]
        wanted: list[str] = []
        for what in reversed(self.scanned.all_open):
            if closed and closed[0] == what:
                del closed[0]
            elif what in closed or len(window) == len(self.suffix):
                wanted.append(what)
            else:
                break  # what closes it may stand beyond the window
        return tuple(wanted)

    @property
    def is_in_comment(self) -> bool:
        """Whether the cursor stands in a comment that ends with its line."""
        return self.scanned.inside == "line"

    @cached_property
    def takes_lines(self) -> bool:
        """Whether more than the rest of this line can be wanted."""
        in_text = self.is_in_comment or self.scanned.inside in ('"', "'")
        return not in_text and all(char in _PUNCTUATION for char in self.after)

    @cached_property
    def opens_block(self) -> bool:
        """Whether the cursor stands at the end of a line that begins a block."""
        line = self.before.rstrip()
        if self.after.strip() or not line or self.scanned.inside:
            return False
        return line[-1] in OPENER_OF.values() or (self.by_indent and line[-1] == ":")

    @property
    def by_indent(self) -> bool:
        """Whether indentation alone tells what a block is."""
        return self.language is not None and self.language.uses_indent


def _last_lines(text: str, size: int) -> str:
    """Returns about the last `size` characters, from the beginning of a line."""
    if len(text) <= size:
        return text
    tail = text[-size:]
    return tail[tail.find("\n") + 1 :]
