"""What a file declares: signatures of its functions and classes, by tree-sitter."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from glm_core.errors import MissingExtraError
from glm_core.extras import require

logger = logging.getLogger(__name__)

_LONGEST = 400
"""Characters of a signature."""
_DEEPEST = 3
"""Classes inside classes."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """Something that other files can name."""

    name: str
    signature: str
    """In one piece as it stands in the file, without its body."""
    depth: int
    """0 at the top of the file, 1 in a class there."""


@dataclass(frozen=True)
class Grammar:
    """How a language's syntax tree names what is looked for."""

    module: str
    function: str = "language"
    """Of the module: gives the grammar."""
    defines: frozenset[str] = frozenset()
    """Nodes with a signature, and a body that is left out."""
    holds: frozenset[str] = frozenset()
    """Those of them whose bodies have declarations too."""
    whole: frozenset[str] = frozenset()
    """Nodes that are taken as they are."""
    passes: frozenset[str] = frozenset()
    """Nodes around declarations that are none themselves."""


def _kinds(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SCRIPT_DEFINES = (
    "function_declaration generator_function_declaration class_declaration method_definition"
)
_SCRIPT_PASSES = "export_statement lexical_declaration variable_declaration"
_C_PASSES = (
    "preproc_ifdef preproc_if preproc_else preproc_elif linkage_specification declaration_list "
    "template_declaration"
)
_C_WHOLE = "declaration type_definition enum_specifier"
_CLASSES = "class_specifier struct_specifier namespace_definition"
_TYPESCRIPT = {
    "defines": _kinds(f"{_SCRIPT_DEFINES} abstract_class_declaration variable_declarator"),
    "holds": _kinds("class_declaration abstract_class_declaration"),
    "whole": _kinds(
        "interface_declaration type_alias_declaration enum_declaration function_signature "
        "method_signature abstract_method_signature"
    ),
    "passes": _kinds(
        f"{_SCRIPT_PASSES} ambient_declaration expression_statement internal_module statement_block"
    ),
}
GRAMMARS: dict[str, Grammar] = {
    "python": Grammar(
        "tree_sitter_python",
        defines=_kinds("function_definition class_definition"),
        holds=_kinds("class_definition"),
        passes=_kinds("decorated_definition if_statement block"),
    ),
    "javascript": Grammar(
        "tree_sitter_javascript",
        defines=_kinds(f"{_SCRIPT_DEFINES} variable_declarator"),
        holds=_kinds("class_declaration"),
        passes=_kinds(_SCRIPT_PASSES),
    ),
    "typescript": Grammar("tree_sitter_typescript", "language_typescript", **_TYPESCRIPT),
    "tsx": Grammar("tree_sitter_typescript", "language_tsx", **_TYPESCRIPT),
    "go": Grammar(
        "tree_sitter_go",
        defines=_kinds("function_declaration method_declaration"),
        whole=_kinds("type_declaration"),
    ),
    "rust": Grammar(
        "tree_sitter_rust",
        defines=_kinds("function_item impl_item trait_item mod_item"),
        holds=_kinds("impl_item trait_item mod_item"),
        whole=_kinds("struct_item enum_item type_item function_signature_item"),
    ),
    "c": Grammar(
        "tree_sitter_c",
        defines=_kinds("function_definition"),
        whole=_kinds(f"struct_specifier {_C_WHOLE}"),
        passes=_kinds(_C_PASSES),
    ),
    "c++": Grammar(
        "tree_sitter_cpp",
        defines=_kinds(f"function_definition {_CLASSES}"),
        holds=_kinds(_CLASSES),
        whole=_kinds(f"field_declaration alias_declaration {_C_WHOLE}"),
        passes=_kinds(_C_PASSES),
    ),
    "java": Grammar(
        "tree_sitter_java",
        defines=_kinds(
            "class_declaration interface_declaration enum_declaration record_declaration "
            "method_declaration constructor_declaration"
        ),
        holds=_kinds("class_declaration interface_declaration record_declaration"),
    ),
}


def declarations_of(text: str, language: str) -> tuple[Declaration, ...]:
    """Returns what a file declares, in its order; nothing for a language without a grammar.

    Args:
        language: key of GRAMMARS.
    """
    parser = _parser(language)
    if parser is None:
        return ()
    data = text.encode("utf-8", errors="replace")
    return tuple(_declared(parser.parse(data).root_node, data, GRAMMARS[language], 0))


@cache
def _parser(language: str) -> Any:
    """Returns the language's parser; None if there is none, with one warning if it is missing."""
    grammar = GRAMMARS.get(language)
    if grammar is None:
        return None
    try:
        library: Any = require("tree_sitter", extra="codegeex", package="tree-sitter")
        package = grammar.module.replace("_", "-")
        module: Any = require(grammar.module, extra="codegeex", package=package)
    except MissingExtraError as error:
        _warn(f"declarations of other files are left out of the context: {error}")
        return None
    return library.Parser(library.Language(getattr(module, grammar.function)()))


@cache
def _warn(message: str) -> None:
    """Says something once."""
    logger.warning("%s", message)


def _declared(node: Any, data: bytes, grammar: Grammar, depth: int) -> Iterator[Declaration]:
    for child in node.named_children:
        kind = child.type
        body = child.child_by_field_name("body")
        if kind == "variable_declarator":  # a function that is a value
            value = child.child_by_field_name("value")
            body = value.child_by_field_name("body") if value is not None else None
            if body is None:
                continue
        if kind in grammar.defines and (body is not None or kind not in grammar.holds):
            end = child.end_byte if body is None else body.start_byte
            yield from _declaration(child, data, end, depth)
            if kind in grammar.holds and depth < _DEEPEST:
                yield from _declared(body, data, grammar, depth + 1)
        elif kind in grammar.whole:
            yield from _declaration(child, data, child.end_byte, depth)
        elif kind in grammar.passes:
            yield from _declared(child, data, grammar, depth)


def _declaration(node: Any, data: bytes, end: int, depth: int) -> Iterator[Declaration]:
    signature = data[node.start_byte : end].decode("utf-8", errors="replace").rstrip()
    name = _name(node)
    if name and len(signature) <= _LONGEST:
        yield Declaration(name, signature, depth)


def _name(node: Any) -> str:
    """The identifier that a node declares."""
    for field in ("name", "declarator", "type"):
        inner = node.child_by_field_name(field)
        if inner is not None:
            return _name(inner) or str(inner.text.decode("utf-8", errors="replace"))
    for child in node.named_children:
        if child.type in ("type_spec", "init_declarator", "function_declarator"):
            return _name(child)
    return ""
