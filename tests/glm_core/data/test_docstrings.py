import pytest

from glm_core.data.docstrings import (
    docstrings_of,
    is_english_like,
    is_prose_like,
    paragraphs_of,
    read_description,
    read_docstrings,
)

MODULE = '''"""Module text."""
import os  # never imported

class A:
    """Class text.
        Indented.
    """ + ""
    value = """not a docstring"""

class B:
    """Class text.
        Indented.

    """
    def late(self):
        """Late text."""
        def inner():
            """Inner text."""
        """not a docstring"""

    async def go(self): """Async text."""

if os.name == "x":
    def branch():
        """Branch text."""
else:
    try:
        def other():
            """Other text."""
    except ImportError:
        def handler():
            """Handler text."""
match 1:
    case 1:
        def case():
            """Case text."""
x = """not a docstring"""
raise SystemExit("running this file would end the test")
'''


def test_docstrings_come_in_source_order_when_they_are_nested():
    assert docstrings_of(MODULE).split("\n\n") == [
        "Module text.",
        "Class text.\nIndented.",
        "Late text.",
        "Inner text.",
        "Async text.",
        "Branch text.",
        "Other text.",
        "Handler text.",
        "Case text.",
    ]


@pytest.mark.parametrize(
    "raw", [b"print 'old'\n'''x'''", b"\xff'''x'''", b"'''\x00'''", b"x = 1", b""]
)
def test_text_is_empty_when_a_file_cannot_be_read(tmp_path, raw):
    path = tmp_path / "m.py"
    path.write_bytes(raw)
    assert read_docstrings(path) == ""


def test_text_is_empty_when_the_file_is_missing(tmp_path):
    assert read_docstrings(tmp_path / "none.py") == ""
    assert read_description(tmp_path / "none") == ""


def test_description_is_the_body_when_metadata_has_one(tmp_path):
    path = tmp_path / "METADATA"
    path.write_text("Name: x\nVersion: 1\n\n# Title\n\nBody text.\n")
    assert read_description(path) == "# Title\n\nBody text."


def test_description_is_the_folded_header_when_metadata_is_old(tmp_path):
    path = tmp_path / "METADATA"
    path.write_text("Name: x\nDescription: First line\n        second line\nLicense: MIT\n")
    assert read_description(path) == "First line\nsecond line"


def test_paragraphs_are_split_at_blank_lines_when_spaces_trail():
    assert paragraphs_of("a  \nb\n \n\tc\n\n\n\nd\n") == ["a\nb", "    c", "d"]


@pytest.mark.parametrize(
    ("paragraph", "wanted"),
    [
        ("Returns the number of items in a container.", True),
        ("x : int\n    The first operand of the sum.", True),
        (">>> len([1, 2])\n2", False),
        ("iVBORw0KGgoAAAANSUhEUgAA" * 8, False),
        ("=====  =====\n1      2\n=====  =====", False),
        ("[![build](https://a.example/x.svg)](https://a.example) [docs](https://b.example)", False),
    ],
)
def test_prose_is_told_from_the_rest_when_judged(paragraph, wanted):
    assert is_prose_like(paragraph) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("Plain English with a naïve word in a longer line of text.", True), ("日本語の説明", False)],
)
def test_english_is_told_from_the_rest_when_judged(text, wanted):
    assert is_english_like(text) is wanted
