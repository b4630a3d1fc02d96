"""Brackets and strings of code, read without a grammar of its language.

Enough to know what is open at a cursor: brackets in strings and comments do not count. What is said
of a bracket does not change when more text comes behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

from codegeex.languages import Language

_PART = 4096
"""Characters, and what is left of a line."""
OPENER_OF = {")": "(", "]": "[", "}": "{"}

_QUOTES_OF_BOTH_KINDS = frozenset(
    "python javascript typescript java c c++ c# cuda go php ruby shell perl lua kotlin scala dart "
    "groovy r sql css objective-c objective-c++ powershell coffeescript elixir julia vue yaml toml "
    "gdscript cmake awk solidity dockerfile actionscript".split()
)
"""Languages where an apostrophe begins a string or a character."""
_BACKTICKS = frozenset("javascript typescript go vue".split())
_TRIPLES = frozenset("python julia kotlin scala swift java groovy dart elixir c# gdscript".split())
_NO_CODE = frozenset(
    "markdown restructuredtext rmarkdown html xml xslt tex literate-haskell literate-agda".split()
)


@dataclass(frozen=True)
class Syntax:
    """What must be known of a language."""

    line_comment: str = ""
    block_comments: bool = False
    """Whether /* */ is a comment."""
    quotes: str = '"'
    triples: bool = False
    """Whether three quotes begin a string of several lines."""
    brackets: str = "()[]{}"
    lifetimes: bool = False
    """Rust: an apostrophe begins a character only where another one follows it."""

    @cached_property
    def tokens(self) -> re.Pattern[str]:
        """Finds brackets, and whole strings and comments."""
        kinds = [("bracket", f"[{re.escape(self.brackets)}]")] if self.brackets else []
        if self.block_comments:
            kinds.append(("block", "/[*]" + _rest("block")))
        if self.line_comment:
            begin = r"(?<!\S)#" if self.line_comment == "#" else re.escape(self.line_comment)
            kinds.append(("line", begin + _rest("line")))
        if self.lifetimes:
            kinds.append(("character", r"'(?:\\[^\n']*'?|[^\n\\]'|\w+|[^\w\n])"))
        threes = [quote * 3 for quote in self.quotes if quote != "`"] if self.triples else []
        for index, quotes in enumerate([*threes, *self.quotes]):
            kinds.append((f"string{index}", quotes + _rest(quotes)))
        found = "|".join(f"(?P<{name}>{pattern})" for name, pattern in kinds)
        return re.compile(found or "(?!)")


def _rest(inside: str) -> str:
    """What goes on to the end of a string or comment; a group takes part where it has one."""
    if inside == "line":
        return r"[^\n]*(\n)?"
    if inside == "block":
        return r"(?:[^*]|[*](?!/))*([*]/)?"
    if inside == "`":
        return r"(?:[^`\\]|\\[\s\S]?)*(`)?"
    if len(inside) == 3:
        quote = inside[0]
        return rf"(?:[^{quote}\\]|\\[\s\S]?|{quote}(?!{quote}{quote}))*({inside})?"
    return rf"(?:[^{inside}\\\n]|\\[\s\S]?)*({inside}|(?=\n))?"


@dataclass(frozen=True)
class Scanned:
    """What a text leaves open, and what it closes that it has not opened."""

    open: tuple[str, ...] = ()
    """Opening brackets, the innermost last."""
    places: tuple[int, ...] = ()
    """Where each of them stands."""
    unmatched: tuple[tuple[int, str], ...] = ()
    """Where something is closed, and what: an opening bracket, or quotes."""
    inside: str = ""
    """The quotes of the string that is open at the end, or "line" or "block" in a comment."""
    num_broken: int = 0
    """Strings that the end of a line cut off."""

    @property
    def all_open(self) -> tuple[str, ...]:
        """As `open`, with the quotes of a string that is open."""
        in_string = self.inside not in ("", "line", "block")
        return (*self.open, self.inside) if in_string else self.open

    @property
    def num_loose(self) -> int:
        """How much is not closed, or not opened."""
        return len(self.all_open) + len(self.unmatched)

    def num_loose_with(self, behind: Scanned) -> int:
        """As `num_loose`, of this text and the one behind it, read inside what is open here."""
        opened, loose = list(self.open), len(self.unmatched)
        for _, what in behind.unmatched:
            if opened and opened[-1] == what:
                opened.pop()
            elif what != self.inside:  # which ends the string that this text left open
                loose += 1
        return loose + len(opened) + len(behind.all_open)


def scan(text: str, syntax: Syntax, inside: str = "") -> Scanned:
    """Reads a text.

    Args:
        inside: what is open where it begins, as in `Scanned.inside`.
    """
    opened: list[tuple[str, int]] = []
    unmatched: list[tuple[int, str]] = []
    at = num_broken = 0
    if inside:
        found = _pattern(inside).match(text)
        assert found is not None
        if found.group(1) is None:
            return Scanned(inside=inside)
        at = found.end()
        if inside not in ("line", "block") and found.group(1):
            unmatched.append((at - len(inside), inside))
        num_broken += not found.group(1)
    groups = syntax.tokens.groupindex
    for token in syntax.tokens.finditer(text, at):
        kind = token.lastgroup or ""
        if kind == "bracket":
            _pair(token.group(), token.start(), opened, unmatched)
        elif kind != "character":
            end = token.group(groups[kind] + 1)
            if end is None and token.end() == len(text):
                inside = _inside(kind, token.group())
                return _scanned(opened, unmatched, inside, num_broken)
            num_broken += end == ""
    return _scanned(opened, unmatched, "", num_broken)


def scan_long(text: str, syntax: Syntax, inside: str = "") -> Scanned:
    """As `scan`, without the places of what is unmatched; parts that were read before are not read
    again, so that a file costs little while somebody types in it."""
    opened: list[tuple[str, int]] = []
    unmatched: list[tuple[int, str]] = []
    begin = num_broken = 0
    while begin < len(text):
        end = text.find("\n", begin + _PART) + 1 or len(text)
        part = _scan_part(text[begin:end], syntax, inside)
        for _, what in part.unmatched:
            if not begin or what != inside:  # the end of a string that the part before began
                _close(what, 0, opened, unmatched)
        opened += zip(part.open, (begin + place for place in part.places), strict=True)
        num_broken += part.num_broken
        inside, begin = part.inside, end
    return _scanned(opened, unmatched, inside, num_broken)


def _pair(
    bracket: str, at: int, opened: list[tuple[str, int]], unmatched: list[tuple[int, str]]
) -> None:
    if bracket in OPENER_OF:
        _close(OPENER_OF[bracket], at, opened, unmatched)
    else:
        opened.append((bracket, at))


def _close(
    what: str, at: int, opened: list[tuple[str, int]], unmatched: list[tuple[int, str]]
) -> None:
    """Closes a bracket, and what is open inside it."""
    if opened and opened[-1][0] == what:
        opened.pop()
    elif any(one == what for one, _ in opened):
        while opened.pop()[0] != what:
            pass
    else:
        unmatched.append((at, what))


def _scanned(
    opened: list[tuple[str, int]], unmatched: list[tuple[int, str]], inside: str, num_broken: int
) -> Scanned:
    brackets, places = tuple(one for one, _ in opened), tuple(at for _, at in opened)
    return Scanned(brackets, places, tuple(unmatched), inside, num_broken)


_scan_part = lru_cache(maxsize=512)(scan)
scan_known = lru_cache(maxsize=16)(scan)
"""As `scan`, for a text that is looked at several times at a time."""


@cache
def _pattern(inside: str) -> re.Pattern[str]:
    return re.compile(_rest(inside))


def _inside(kind: str, piece: str) -> str:
    """Returns what is open after a string or comment that does not end."""
    if not kind.startswith("string"):
        return kind
    return piece[:3] if piece[:3] == piece[0] * 3 else piece[0]


@cache
def syntax_of(language: Language | None) -> Syntax:
    """Returns what is known of a language; of an unknown one, brackets and double quotes."""
    if language is None:
        return Syntax()
    key = language.key
    if key in _NO_CODE:
        return Syntax(quotes="", brackets="")
    slashes = language.line_comment == "//"
    return Syntax(
        line_comment=language.line_comment,
        block_comments=slashes or key in ("css", "sql"),
        quotes='"'
        + ("'" if key in _QUOTES_OF_BOTH_KINDS or key == "rust" else "")
        + ("`" if key in _BACKTICKS else ""),
        triples=key in _TRIPLES,
        # `case x)` of a shell closes what nothing opened
        brackets="[]{}" if key in ("shell", "tcsh") else "()[]{}",
        lifetimes=key == "rust",
    )
