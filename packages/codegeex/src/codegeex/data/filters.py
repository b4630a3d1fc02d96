"""Filters over one file's text; each gives the reason to leave it out, or None.

The rules of the original's training data: mean line above 100 characters, generated, fewer than
40 % letters, above 100 KB or below 1 KB. Beside them: no text at all, one very long line, and
tables of literals, which the share of letters does not find when they are words.
"""

from __future__ import annotations

import re
import string

from codegeex.data.config import PrepareConfig
from codegeex.data.reasons import Reason

_LETTERS = string.ascii_letters.encode() + bytes(range(128, 256))
_TOP_CHARS = 2_000
_TOP_LINES = 20
_GENERATED = re.compile(
    r"auto-?generated|automatically\s+generated|generated\s+automatically|@generated\b"
    r"|\b(?:do|must)\s+not\s+(?:be\s+)?(?:edit|modif|change)\w*"
    r"|^\W*(?:this (?:file|code|module) (?:is|was|has been) |code |file )?generated"
    r" (?:by|from|with)\b",
    re.IGNORECASE | re.MULTILINE,
)
_COMMENT = re.compile(r"^\s*(?:#|//|/\*|\*|--|;|%|<!--|!|\"\"\"|''')")
_LITERAL = r"""(?:[-+]?\d[\w.+-]*+|'[^'\n]*+'|"[^"\n]*+"|(?i:none|null|true|false)\b)"""
_LITERALS = re.compile(  # a line of numbers and strings, with what separates them
    rf"^[ \t]*+(?=[\[({{'\"\d+-])[\[({{ \t]*+{_LITERAL}?(?:[ \t,:\])}}]++{_LITERAL}?)*+[;]?$", re.M
)
_LONG = 120
_LONG_RUN = re.compile(rf"[A-Za-z0-9+/=_\\-]{{{_LONG},}}")
_MAX_DATA = 0.6


def decode(raw: bytes) -> str | Reason:
    """The text of a file without a byte order mark, lines ended by \\n; or why it is none."""
    if b"\0" in raw:
        return Reason.binary
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Reason.not_utf8
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def of_size(size: int, config: PrepareConfig) -> Reason | None:
    """Whether a file has too many or too few bytes; needs no reading."""
    if size > config.max_bytes:
        return Reason.too_large
    return Reason.too_small if size < config.min_bytes else None


def of_text(text: str, config: PrepareConfig) -> Reason | None:
    """The first filter that a text does not pass."""
    if is_minified(text, config.max_mean_line, config.max_line):
        return Reason.minified
    if alphabetic_share(text) < config.min_alphabetic:
        return Reason.not_alphabetic
    if not config.generated and is_generated(text):
        return Reason.generated
    return Reason.data if is_data(text) else None


def is_minified(text: str, max_mean: float, max_line: int) -> bool:
    """Whether lines are longer than a person writes them."""
    lines = text.removesuffix("\n").split("\n")
    return sum(map(len, lines)) > max_mean * len(lines) or max(map(len, lines)) > max_line


def alphabetic_share(text: str) -> float:
    """Share of letters among the bytes; those of other scripts count as letters."""
    raw = text.encode("utf-8", errors="replace")
    return 1 - len(raw.translate(None, delete=_LETTERS)) / len(raw) if raw else 0.0


def is_generated(text: str) -> bool:
    """Whether a comment at the top says that a program wrote the file."""
    top = [line for line in text[:_TOP_CHARS].split("\n")[:_TOP_LINES] if _COMMENT.match(line)]
    return bool(_GENERATED.search("\n".join(top)))


def is_data(text: str) -> bool:
    """Whether most of the text is literals, line after line, or long runs without a space."""
    literal = sum(len(line[0]) for line in _LITERALS.finditer(text))
    runs = sum(len(run) for run in _LONG_RUN.findall(text)) if _has_long_line(text) else 0
    return max(literal, runs) > _MAX_DATA * len(text)


def _has_long_line(text: str) -> bool:
    return max(map(len, text.split("\n"))) >= _LONG
