"""What is shown of a model's text, by the place it is for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegeex.complete.options import Options
from codegeex.hole import Mode

from .shapes import fits, hole_of, shaped

# `|` is the cursor in a file, and `§` stands in the model's text where the completion ends.
PYTHON = [
    # the block that the cursor's line begins
    ("def fib(n):|", "\n    if n < 2:\n        return n\n\n    return 1§\n\n\ndef f():\n"),
    ("def fib(n):|", "\n    return 1§\nprint(fib(3))\n"),
    ("def fib(n):|", "§\nreturn 1\n"),
    ("class A:\n    def f(self):|", "\n        return 1§\n\n    def g(self):\n"),
    # the block that the cursor's line stands in
    ("def f():\n    x = |", "1\n    y = 2\n    return x§\n\ndef g():\n"),
    ("def f():\n    |", "x = 1\n    if x:\n        y()\n    return x§\nz = 1"),
    ("def f():\n|", "    x = 1\n    return x§\nz = 1"),
    ("if a:\n    for i in|", " b:\n        c()\n    d()§\ne()"),
    # top level: one paragraph
    ("import os\n|", "import sys\nimport re§\n\nx = 1\n"),
    ("import os\n|", "\n\ndef f():\n    a = 1\n\n    return a§\n\n\ndef g():\n"),
    # below the top level: one definition, but any number of statements
    ("class A:\n    |", "def f(self):\n        return 1§\n\n    def g(self):\n"),
    ("def f():\n    |", "for x in y:\n        z()\n\n    return 1§\n\n\nq = 1"),
    # what the file closes already
    ("print(|)", "x§)"),
    ("print(|)", "foo(a)§"),
    ("print(foo(|))", "a, b§)) + 1"),
    ("x = [f(|", "a), f(b)]\ny = 1§"),
    ("x = [\n    1,\n    |\n]\n", "2,\n    3,§\n]\n"),
    ('print("hel|")', 'lo§")\nx = 1'),
    ('print("hel|', 'lo")  # ")"§'),
    ('print(":)", |)', "a§)"),
    ("x = {|}", '"a": (1), "b": 2§}'),
    ("f(|)", "\n    a,\n    b,\n§)\nc"),
    ('x = """a|"""\n', 'b"" c\nd§"""\ny'),
    # what the file says already
    ("def f():\n    x = 1\n    |\n    return x\n", "y = 2§\n    return x\n"),
    ("def f():\n    |\n    return x\n", "§return x"),
    ("def f():\n    |\n    return x\n", "return xs§"),
    ("    y = |\n    return x\n", "2§\n    return"),
    ("foo(a|, b)\nc()", ", d§, b)"),
    ("if x|:\n", " > 5§:\n        return"),
    ("foo(|, b)", "a§,"),
    ('x = |"', '"abc§"'),
    ("x = foo|(a)", "bar§(a)"),
    ("ma|x(1)", "§x"),
    ("y = |x", "max§"),
    ("y = |x", "z + §x"),
    # the rest of the line says that one line is enough
    ("if |: return 1\n", "x and (§\n y)\n"),
    ("x = | + 1\n", "y§\nz"),
    ("# the |", "rest§\nx = 1"),
    ("x = 'a|", "bc'§\ny = 1\n"),
    # circles
    ("def f():\n    |", "x()§\n    x()\n    x()\n    x()\n"),
    ("def f():\n    |", "a()\n    b()§\n    a()\n    b()\n    a()\n    b()\n    a()"),
    ("def f():\n    |", "a()\n    a()\n    b()§\n"),
    ("x = '|", "ab" * 12 + "§" + "ab" * 188),
    # ends
    ("x = |", "1§   \n\n\n"),
    ("|", "§"),
    ("|", "§   \n  "),
]  # fmt: skip
BRACES = [
    ("c", "int f() {|", "\n    return 1;\n}§\n\nint g() {\n"),
    ("c", "int f() {|\n}\n", "\n    return 1;§\n}\n\nint g() {\n"),
    ("c", "int f() {\n    int x = |", "1;\n    return x;\n}§\n\nint g"),
    ("c", "int f() {\n    if (x) {|",
     "\n        a();\n    } else {\n        b();\n    }§\n    c();\n}\n"),
    ("c", "int f() {|}", "\n  a();\n§}\nint g"),
    ("go", "func f() {\n\tx := |\n}\n", "1\n\treturn x§\n}\nfunc g"),
    ("javascript", "f(() => {|", "\n  g();\n});§\nh();\n"),
    ("javascript", "f(() => {|\n});\n", "\n  g();§\n});\nh();\n"),
    ("javascript", "const s = `a|`;", "b ${c} ( d§`;\nx"),
    ("rust", "fn f<'a>(x: &'a str|", ", y: char) -> bool {\n    x == ')'\n}§\nfn g"),
    ("rust", "fn f<'a>(x: &'a str|) {\n}\n", ", y: char§) -> bool {"),
    ("shell", 'case "$1" in\n    |\nesac\n', "a) b ;;\n    c) d ;;§\n"),
    ("", "don't ( |", "stop) (§\n"),
    ("", "def fib(n):|", "\n    return n§\n\ndef f():\n"),
    ("", "int f() {\n    a: |", "\n    b();\n}§\nx"),
    ("python", "def f_|", "rewrite_rewrite_rewrite_§rewrite_" + "rewrite_" * 20),
    ("python", "# |", "-" * 100 + "§"),
    ("markdown", "# A\n|", "It is :) here (§\n"),
    ("java", "class A {\n    void f() {|\n    }\n}\n",
     "\n        g();§\n    }\n\n    void h() {\n"),
]  # fmt: skip


def check(marked: str, text: str, **fields: object) -> None:
    shown, _, rest = text.partition("§")
    assert fits(marked, shown + rest, **fields) == shown


@pytest.mark.parametrize(("marked", "text"), PYTHON)
def test_python_ends_where_its_block_does(marked: str, text: str) -> None:
    check(marked, text)


@pytest.mark.parametrize(("language", "marked", "text"), BRACES)
def test_languages_with_brackets_end_where_their_block_does(
    language: str, marked: str, text: str
) -> None:
    check(marked, text, language=language)


LINES = [
    ("x = |", "1§\ny = 2"),
    ("def f():|", "\n    return 1§\n    x"),
    ("def f():|", "  # why§\n    return 1"),
    ("x = 1|", "§\ny = 2"),
    ("foo(|)", "a§)\n"),
    ("f(|", "a)§\nb"),
]  # fmt: skip


@pytest.mark.parametrize(("marked", "text"), LINES)
def test_one_line_is_shown_in_line_mode(marked: str, text: str) -> None:
    check(marked, text, mode=Mode.line)


def test_text_ends_before_a_stop_string_that_is_complete_first() -> None:
    shaper = shaped(hole_of("x = |"), ["1 + END2 EN", "D"], Options(stop=("END", "2")))
    assert (shaper.shown, shaper.stop and shaper.stop.word) == ("1 +", "END")
    assert fits("x = |", "ab", Options(stop=("zz",))) == "ab"


def test_lines_keep_their_least_indentation() -> None:
    options = Options(min_indent=4)
    assert fits("|", "    a\n    b\n\n   c\n", options) == "    a\n    b"
    assert fits("|", "a\n    b\n\tc", options) == "a\n    b"


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_text_ends_with_so_many_lines(count: int) -> None:
    shown = fits("def f():\n    |", "a\n    b\n\n    c", Options(max_lines=count))
    assert shown == "\n".join("a\n    b\n\n    c".split("\n")[:count]).rstrip()


def test_raw_text_is_as_the_model_wrote_it() -> None:
    raw = Options(raw=True, stop=("Z",))
    assert fits("print(|)", "x)\n\ny = 1\n  Zb", raw) == "x)\n\ny = 1\n  "


FRAGMENTS = st.sampled_from(
    ["a", "foo", "x = 1", "(", ")", "[", "]", "{", "}", '"', "'", "\n", "\n", "    ", "\t", " ",
     ":", ",", "#", "/", "*", "//", "return x", "\\", "else:", "é🙂", "\n    ", "\n\n", "def f():",
     '"""', "END", "ab" * 25, "`", "if a:", "};", "\n    return x\n", "\r\n"]
)  # fmt: skip
TEXTS = st.lists(FRAGMENTS, max_size=14).map("".join)
LANGUAGES = st.sampled_from(["python", "c", "javascript", "rust", "shell", "", "java"])
OPTIONS = st.builds(
    Options, stop=st.sampled_from([(), ("END",), ("x = ", "\n\n")]), min_indent=st.integers(0, 4)
)


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS, TEXTS, LANGUAGES, st.sampled_from(Mode), OPTIONS, st.data())
def test_what_is_shown_is_final_and_the_same_in_any_pieces(
    prefix: str,
    suffix: str,
    text: str,
    language: str,
    mode: Mode,
    options: Options,
    data: st.DataObject,
) -> None:
    prefix, suffix = prefix.replace("\r", ""), suffix.replace("\r", "")
    hole = hole_of("|", prefix=prefix, suffix=suffix, language=language, mode=mode)
    whole = shaped(hole, [text], options)
    single = shaped(hole, text, options)  # asserts that nothing is taken back
    assert (single.shown, single.stop) == (whole.shown, whole.stop)
    cuts = data.draw(st.sets(st.integers(0, len(text)), max_size=4))
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in zip(places, places[1:], strict=False)]
    assert shaped(hole, pieces, options).shown == whole.shown
    assert text.replace("\r\n", "\n").startswith(whole.shown)
