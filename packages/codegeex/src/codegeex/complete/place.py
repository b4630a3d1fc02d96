"""What rules must know of the place of a hole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from codegeex.complete.scan import OPENER_OF, Scanned, Syntax, scan, scan_long, syntax_of
from codegeex.complete.window import MOST_CHARS
from codegeex.hole import Hole
from codegeex.languages import LANGUAGES, Language, language_of_path

_PUNCTUATION = frozenset(")]}>\"'`;:,")
"""Of this alone the rest of a line can be, and several lines may still be wanted before it."""
_NEAR = 2000
"""Characters that tell what an unknown language is like."""
_TAB = 4
_CLASS = re.compile(
    r"\b(class|struct|interface|impl|trait|namespace|module|mod|object|extension|protocol)\b"
)


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
        if language is None and _looks_like_python(hole.prefix):
            language = LANGUAGES["python"]
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
        return scan_long(self.prefix, self.syntax)

    @cached_property
    def wanted(self) -> tuple[str, ...]:
        """What is open at the cursor and not closed behind it, the innermost first."""
        inside, opened = self.scanned.inside, [*self.scanned.open]
        in_string = inside not in ("", "line", "block")
        behind = scan_long(self.suffix, self.syntax, inside)
        closed = [what for _, what in behind.unmatched]
        if in_string and self._closes_string(behind):
            closed.remove(inside)
            in_string = False
        elif in_string:
            closed = [what for _, what in scan_long(self.suffix, self.syntax).unmatched]
        is_whole = len(self.suffix) < MOST_CHARS
        brackets = _not_closed(opened, closed) if is_whole else _not_closed_near(opened, closed)
        return (inside, *brackets) if in_string else tuple(brackets)

    def _closes_string(self, behind: Scanned) -> bool:
        """Whether the string at the cursor ends behind it.

        The next quotes may begin another string instead. Then there is something wrong with what
        stands behind if they are read as an end, and not if they are read as a beginning.
        """
        inside = self.scanned.inside
        if len(inside) == 1 and inside != "`":
            behind, other = (scan(f"{self.after}\n", self.syntax, one) for one in (inside, ""))
        else:
            other = scan_long(self.suffix, self.syntax)
        if not any(what == inside for _, what in behind.unmatched):
            return False
        return _faults(behind, 1) <= _faults(other)

    @cached_property
    def indent(self) -> int:
        """How far the statement at the cursor is indented, which may have begun lines above."""
        head = self.prefix[: len(self.prefix) - len(self.before)]
        before = scan_long(head, self.syntax)
        begin = len(head)
        kinds = "([{" if self.by_indent else "(["
        for bracket, place in zip(reversed(before.open), reversed(before.places), strict=True):
            if bracket not in kinds:
                break
            begin = place
        return indent_of(self.prefix[self.prefix.rfind("\n", 0, begin) + 1 :])

    def holds_definitions(self, level: int) -> bool:
        """Whether a block of so many columns at the cursor is one of definitions, not statements:
        the top level of a file, or the body of a class."""
        if level == 0:
            return True
        end = len(self.prefix)
        while end > 0:
            begin = self.prefix.rfind("\n", 0, end) + 1
            line = self.prefix[begin:end]
            if line.strip() and indent_of(line) < level:
                return _CLASS.search(line) is not None
            end = begin - 1
        return False

    @property
    def is_in_comment(self) -> bool:
        """Whether the cursor stands in a comment that ends with its line."""
        return self.scanned.inside == "line"

    @cached_property
    def takes_lines(self) -> bool:
        """Whether more than the rest of this line can be wanted."""
        in_text = self.is_in_comment or self.scanned.inside in ('"', "'")
        after = self.after.strip()
        return not in_text and (after[:1] == "}" or all(char in _PUNCTUATION for char in after))

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


def _looks_like_python(prefix: str) -> bool:
    """Whether lines near the end of a text begin blocks as Python's do, and none as others'."""
    ends = [line.rstrip()[-1:] for line in prefix[-_NEAR:].split("\n")]
    return ":" in ends and not {"{", ";"}.intersection(ends)


def _faults(scanned: Scanned, expected: int = 0) -> tuple[int, bool, int]:
    """What is wrong with a text, beside so many brackets and quotes that are not matched."""
    return scanned.num_broken, bool(scanned.inside), scanned.num_loose - expected


def _not_closed(opened: list[str], closed: list[str]) -> list[str]:
    """Returns which brackets are not closed in all of a file's rest, the innermost first.

    The last bracket that it closes is the first that is open, and so on from the outside.
    """
    wanted, closed = [], list(closed)
    for what in opened:
        if closed and closed[-1] == what:
            closed.pop()
        else:
            wanted.append(what)
    return wanted[::-1]


def _not_closed_near(opened: list[str], closed: list[str]) -> list[str]:
    """As `_not_closed`, where the end of the file is not known: from the inside."""
    wanted, closed = [], list(closed)
    for what in reversed(opened):
        if closed and closed[0] == what:
            del closed[0]
        elif what in closed or what != "{":
            wanted.append(what)
        else:
            break  # its end may stand beyond what is known
    return wanted
