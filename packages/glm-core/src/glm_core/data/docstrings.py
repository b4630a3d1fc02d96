"""English prose from Python files and package metadata, without importing or running them."""

from __future__ import annotations

import ast
import inspect
import re
import string
import warnings
from pathlib import Path

_MAX_FILE_BYTES = 4_000_000
_LONG_WORD = re.compile(r"\S{120,}")
_URL = re.compile(r"(https?://\S+)|(!?\[[^\]]*\]\([^)]*\))")
_BLANK_LINES = re.compile(r"\n[ \t]*\n+")
_CLEAN_ENGLISH = 0.97
_READABLE = (string.ascii_letters + " \n").encode()
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings_of(source: str) -> str:
    """All docstrings of one module in source order, dedented, blank lines between them.

    Raises:
        SyntaxError, ValueError, RecursionError: if Python cannot parse the source.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        tree = ast.parse(source)
    nodes = sorted(_definitions(tree), key=lambda node: getattr(node, "lineno", 0))
    found = (ast.get_docstring(node, clean=True) for node in nodes)
    return "\n\n".join(text.strip() for text in found if text and text.strip())


def _definitions(tree: ast.Module) -> list[_Documented]:
    """Everything in a module that can have a docstring; visits statements, not expressions."""
    found: list[_Documented] = [tree]
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, name, None)
            if isinstance(inner, list):
                waiting.extend(inner)
                found.extend(child for child in inner if isinstance(child, _Documented))
    return found


def read_docstrings(path: Path) -> str:
    """Docstrings of the file at `path`; empty when it is unreadable or is not Python 3."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return ""
        source = path.read_text(encoding="utf-8")
        if '"""' not in source and "'''" not in source:
            return ""
        return docstrings_of(source)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def read_description(path: Path) -> str:
    """The Description of a METADATA file: its body, or the folded header of old versions."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    header, _, body = text.partition("\n\n")
    if body.strip():
        return body.strip()
    match = re.search(r"^Description: (.*(?:\n[ \t].*)*)", header, flags=re.MULTILINE)
    return inspect.cleandoc(match.group(1)) if match else ""


def paragraphs_of(text: str) -> list[str]:
    """Paragraphs of a text: runs of lines between blank lines, right-stripped."""
    lines = "\n".join(line.rstrip() for line in text.expandtabs(4).splitlines())
    parts = (part.strip("\n") for part in _BLANK_LINES.split(lines))
    return [part for part in parts if part.strip()]


def is_prose_like(paragraph: str) -> bool:
    """Whether a paragraph is worth learning: no encoded data, tables, link lists, rulers."""
    size = len(paragraph)
    if _LONG_WORD.search(paragraph):
        return False
    linked = sum(len(match.group(0)) for match in _URL.finditer(paragraph))
    if linked > 0.4 * size:
        return False
    return _readable(paragraph) >= 0.65 * size


def _readable(paragraph: str) -> int:
    """How many characters are letters, spaces or line breaks."""
    if paragraph.isascii():
        return len(paragraph) - len(paragraph.encode().translate(None, _READABLE))
    return sum(char.isalpha() or char in " \n" for char in paragraph)


def is_english_like(text: str) -> bool:
    """Whether a text is almost wholly ASCII, which English documentation is."""
    ascii_chars = len(text.encode("ascii", errors="ignore"))
    return ascii_chars >= _CLEAN_ENGLISH * len(text)
