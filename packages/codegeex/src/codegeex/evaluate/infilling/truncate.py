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
    reference = _Filled(language, before, "pass" if language == "python" else "", behind)
    around, wanted = reference.around(), reference.rest()
    lines = completion.splitlines(keepends=True)
    while lines:
        text = "".join(lines)
        filled = _Filled(language, before, text, behind)
        if not filled.is_broken and filled.rest() == wanted and filled.lies_in(around):
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


class _Filled:
    """The tree of a program with a text in its hole."""

    def __init__(self, language: str, before: str, text: str, behind: str) -> None:
        start = before.encode()
        filled = start + text.encode()
        self._begin, self._end = len(start), len(filled)
        self._text_end = len(filled.rstrip()) if text.strip() else self._end
        self._tree = _parser(language).parse(filled + behind.encode())
        self.is_broken = bool(self._tree.root_node.has_error)

    def rest(self) -> list[tuple[str, int]]:
        """Returns type and depth of every leaf outside the hole."""
        return [
            (kind, depth)
            for kind, depth, begin, end in _leaves(self._tree)
            if end <= self._begin or begin >= self._end
        ]

    def around(self) -> tuple[str, int]:
        """Returns type and place of the smallest node that begins before the hole and holds it."""
        node = found = self._tree.root_node
        while node is not None:
            if node.start_byte < self._begin:
                found = node
            holders = (
                child
                for child in node.children
                if child.start_byte <= self._begin and child.end_byte >= self._end
            )
            node = next(holders, None)
        return found.type, found.start_byte

    def lies_in(self, around: tuple[str, int]) -> bool:
        """Returns whether such a node, at the same place, holds the whole text."""
        nodes = [self._tree.root_node]
        while nodes:
            node = nodes.pop()
            if (node.type, node.start_byte) == around and node.end_byte >= self._text_end:
                return True
            nodes += [
                child
                for child in node.children
                if child.start_byte <= around[1] and child.end_byte >= self._text_end
            ]
        return False


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
