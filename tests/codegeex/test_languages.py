from __future__ import annotations

import pytest

from codegeex.languages import LANGUAGES, find_language, language_of_path

# As THUDM/CodeGeeX2 evaluation/utils.py spells them, oddities included.
TAGS = {
    "python": "# language: Python",
    "c++": "// language: C++",
    "js": "// language: JavaScript",
    "cuda": "// language: Cuda",
    "css": "/* language: CSS */",
    "html": "<!--language: HTML-->",
    "swift": "// language: swift",
    "fortran": "!language: Fortran",
    "tcl": "// language: Augeas",
    "delphi": "{language: Delphi}",
    "isabelle": "(*language: Isabelle*)",
    "standard-ml": "(*language:Standard ML*)",
    "vb": "' language: Visual Basic",
    "smalltalk": "'' language: Smalltalk",
    "restructuredtext": ".. language: reStructuredText",
    "literate-haskell": "> language: Literate Haskell",
    "prolog": "% language: Prolog",
    "thrift": "/* language: Thrift */",
    "abap": "* language: Abap",
    "f-sharp": "// language: F#",
}


@pytest.mark.parametrize(("name", "tag"), TAGS.items())
def test_tag_is_that_of_the_original_when_asked(name, tag):
    assert find_language(name).tag == tag


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Python", "python"),
        ("cpp", "c++"),
        ("C#", "c#"),
        ("typescriptreact", "typescript"),
        ("shellscript", "shell"),
        (" golang ", "go"),
    ],
)
def test_language_is_found_when_an_editor_spells_it(name, key):
    assert find_language(name).key == key


def test_error_offers_near_names_when_the_language_is_unknown():
    with pytest.raises(ValueError, match="'pyton' is unknown: did you mean python"):
        find_language("pyton")
    with pytest.raises(ValueError, match="unknown: leave it away"):
        find_language("§§§§")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a/b.py", "python"),
        ("A\\B.PYI", "python"),
        ("src/Makefile", "makefile"),
        ("x.tar.go", "go"),
        ("CMakeLists.txt", "cmake"),
        ("component.tsx", "typescript"),
    ],
)
def test_language_is_told_when_a_path_has_a_known_ending(path, key):
    found = language_of_path(path)
    assert found is not None and found.key == key


@pytest.mark.parametrize("path", ["", "README", "a.unknown", "py", ".py/x"])
def test_no_language_is_told_when_the_ending_says_nothing(path):
    assert language_of_path(path) is None


def test_every_spelling_belongs_to_one_language_when_listed():
    spellings = [
        spelling.lower()
        for language in LANGUAGES.values()
        for spelling in {language.key, language.name.lower(), *language.aliases}
    ]
    assert len(spellings) == len(set(spellings))
    endings = [ending for language in LANGUAGES.values() for ending in language.extensions]
    assert len(endings) == len(set(endings))
    assert LANGUAGES["python"].uses_indent and not LANGUAGES["c"].uses_indent
