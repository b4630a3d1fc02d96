"""Signatures of what files declare."""

from __future__ import annotations

import ast
import logging
from typing import Any

import pytest

from codegeex.complete.context import declarations
from codegeex.complete.context.declarations import GRAMMARS, declarations_of
from glm_core.errors import MissingExtraError

SOURCES = {
    "python": (
        "@deco\nclass A(B):\n    def f(self, a: int) -> str:\n        return 1\nif X:\n"
        "    def g(): pass\nasync def h(\n    a,\n): pass\n",
        ["class A(B):", "    def f(self, a: int) -> str:", "def g():", "async def h(\n    a,\n):"],
    ),
    "javascript": (
        "export default function main(a) { return 1 }\nexport const f = (a) => { return a };\n"
        "const K = 3;\nclass A extends B { static m(a) { } get v() { return 1 } }\n",
        ["function main(a)", "f = (a) =>", "class A extends B", "    static m(a)", "    get v()"],
    ),
    "typescript": (
        "export interface P { a: string }\nexport type Q = P | null;\n"
        "abstract class A<T> implements I { n(): T { return null } abstract m(a: T): void; }\n"
        "declare function d(a: string): void;\nnamespace N { export function g() { } }\n",
        ["interface P { a: string }", "type Q = P | null;", "abstract class A<T> implements I",
         "    n(): T", "    abstract m(a: T): void", "function d(a: string): void;",
         "function g()"],
    ),
    "tsx": ("const C = (p: P) => { return <div/>; };\n", ["C = (p: P) =>"]),
    "go": (
        "package a\ntype S struct { A int }\nfunc (s *S) M(x int) error { return nil }\n"
        "func F(a int) int { return a }\n",
        ["type S struct { A int }", "func (s *S) M(x int) error", "func F(a int) int"],
    ),
    "rust": (
        "pub struct S<T> { pub a: T }\nimpl<T> S<T> { pub fn new(a: T) -> Self { S { a } } }\n"
        "pub trait T { fn f(&self) -> u8; }\npub fn top<'a>(x: &'a str) -> u8 { 1 }\n",
        ["pub struct S<T> { pub a: T }", "impl<T> S<T>", "    pub fn new(a: T) -> Self",
         "pub trait T", "    fn f(&self) -> u8;", "pub fn top<'a>(x: &'a str) -> u8"],
    ),
    "c": (
        "#ifndef A\n#define A\ntypedef struct { int a; } S;\nint f(int a, char *b);\n"
        "static int g(void) { return 1; }\n#endif\n",
        ["typedef struct { int a; } S;", "int f(int a, char *b);", "static int g(void)"],
    ),
    "c++": (
        "namespace n {\ntemplate <class T> class V : public B { public: V(int a); "
        "T get() const { return x; } };\nint f(int a);\n}\n",
        ["namespace n", "    class V : public B", "        V(int a);", "        T get() const",
         "    int f(int a);"],
    ),
    "java": (
        "package a;\npublic class A<T> extends B { private int x; public A(int x) { } "
        "String f(T a) throws E { return null; } interface I { void m(); } }\n",
        ["public class A<T> extends B", "    public A(int x)", "    String f(T a) throws E",
         "    interface I", "        void m();"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", SOURCES)
def test_signatures_are_found_without_their_bodies(language: str) -> None:
    text, expected = SOURCES[language]
    found = declarations_of(text, language)
    assert ["    " * one.depth + one.signature for one in found] == expected
    assert all(one.name in one.signature for one in found)
    assert set(SOURCES) == set(GRAMMARS)


def test_names_are_those_of_pythons_own_parser() -> None:
    source = (declarations.__spec__ and declarations.__spec__.origin) or ""
    text = open(source, encoding="utf-8").read()
    nodes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = [node.name for node in ast.parse(text).body if isinstance(node, nodes)]
    assert [one.name for one in declarations_of(text, "python") if one.depth == 0] == names


@pytest.mark.parametrize("language", GRAMMARS)
def test_broken_text_raises_nothing(language: str) -> None:
    for text in ("", "class (((", "\0\ud800", "{" * 2000, SOURCES[language][0][:-20]):
        declarations_of(text, language)
    assert declarations_of("x", "brainfuck") == ()


def test_one_warning_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    declarations._parser.cache_clear()
    declarations._warn.cache_clear()

    def missing(module: str, **fields: str) -> Any:
        raise MissingExtraError('codegeex needs tree-sitter: pip install -e ".[codegeex]"')

    monkeypatch.setattr(declarations, "require", missing)
    try:
        with caplog.at_level(logging.WARNING):
            assert declarations_of("def f(): pass", "python") == ()
            assert declarations_of("def g(): pass", "python") == ()
            assert declarations_of("int f() {}", "c") == ()
    finally:
        declarations._parser.cache_clear()
    (record,) = caplog.records
    assert "are left out of the context: codegeex needs tree-sitter" in record.getMessage()
