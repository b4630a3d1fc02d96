"""What of a completion belongs into a hole of SAFIM: the model may go on after it.

Source: section 4.2 of arXiv 2403.04814. A block is cut, line by line, until the program parses and
what stands around the hole keeps its place in the tree.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from codegeex.evaluate.infilling.task import first_line, line_is_over
from codegeex.evaluate.mask import mask
from glm_core.extras import require

_GRAMMARS = {"python": "tree_sitter_python", "java": "tree_sitter_java", "c++": "tree_sitter_cpp"}

Signature = list[tuple[str, int]]
"""Type and depth of every leaf of a tree outside the hole."""


def block(language: str, before: str, behind: str, completion: str) -> str:
    """Returns the lines of a completion that leave the rest of the program as it is.

    Args:
        language: a key of `codegeex.languages`; without a grammar for it nothing is cut.
        before: the program before the hole.
        behind: the program behind it.
        completion: what a model wrote.

    Raises:
        MissingExtraError: tree-sitter is not installed.
    """
    if language not in _GRAMMARS:
        return completion
    empty = "pass" if language == "python" else ""
    wanted = _signature(language, before, empty, behind)
    lines = completion.splitlines(keepends=True)
    while lines:
        text = "".join(lines)
        if _signature(language, before, text, behind) == wanted:
            return text
        lines.pop()
    return ""


def control(language: str, before: str, behind: str, completion: str) -> str:
    """Returns Python's first line, and elsewhere all up to the bracket that closes the head."""
    if language == "python":
        return first_line(completion)
    end = _closing(completion, language)
    return completion if end is None else completion[:end]


def call(language: str, before: str, behind: str, completion: str) -> str:
    """Returns all up to the bracket that closes the call's arguments."""
    end = _call_end(completion, language)
    return completion if end is None else completion[:end]


def _block_is_over(language: str, before: str, text: str, piece: str) -> bool:
    """Whether a line of less indentation has begun, or a bracket closes what is around."""
    if language == "python":
        indent = len(before.rpartition("\n")[2])
        *_, last = text.split("\n")
        return "\n" in text and bool(last.strip()) and len(last) - len(last.lstrip()) < indent
    return "}" in piece and _closing(text, language, "{", "}") is not None


def _control_is_over(language: str, before: str, text: str, piece: str) -> bool:
    if language == "python":
        return line_is_over(text, piece)
    return ")" in piece and _closing(text, language) is not None


def _call_is_over(language: str, before: str, text: str, piece: str) -> bool:
    return ")" in piece and _call_end(text, language) is not None


TRUNCATE: dict[str, Callable[[str, str, str, str], str]] = {
    "block": block,
    "control": control,
    "api": call,
}
IS_OVER: dict[str, Callable[[str, str, str, str], bool]] = {
    "block": _block_is_over,
    "control": _control_is_over,
    "api": _call_is_over,
}


def _closing(text: str, language: str, opens: str = "(", closes: str = ")") -> int | None:
    """Returns where the bracket stands that closes more than the text opens."""
    depth = 0
    for index, char in enumerate(mask(text, language)):
        depth += (char == opens) - (char == closes)
        if depth < 0:
            return index
    return None


def _call_end(text: str, language: str) -> int | None:
    """Returns where the outermost bracket has closed again."""
    depth = 0
    for index, char in enumerate(mask(text, language)):
        depth += (char == "(") - (char == ")")
        if char == ")" and depth <= 0:
            return index + (depth == 0)
    return None


def _signature(language: str, before: str, text: str, behind: str) -> Signature | None:
    """Returns what a tree is outside the hole; None where the program does not parse."""
    start = before.encode()
    filled = start + text.encode()
    tree = _parser(language).parse(filled + behind.encode())
    if tree.root_node.has_error:
        return None
    return [
        (kind, depth)
        for kind, depth, begin, end in _leaves(tree)
        if end <= len(start) or begin >= len(filled)
    ]


def _leaves(tree: Any) -> Iterator[tuple[str, int, int, int]]:
    """Yields type, depth, begin and end of each leaf that is no comment."""
    cursor, depth = tree.walk(), 0
    while True:
        if cursor.goto_first_child():
            depth += 1
            continue
        node = cursor.node
        if node.type not in ("comment", "line_comment", "block_comment"):
            yield node.type, depth, node.start_byte, node.end_byte
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            depth -= 1


@functools.cache
def _parser(language: str) -> Any:
    tree_sitter: Any = require("tree_sitter", extra="codegeex", package="tree-sitter")
    module = _GRAMMARS[language]
    grammar: Any = require(module, extra="codegeex", package=module.replace("_", "-"))
    return tree_sitter.Parser(tree_sitter.Language(grammar.language()))
