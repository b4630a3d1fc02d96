"""Code without its comments and texts, so that brackets and names can be looked for in the rest."""

from __future__ import annotations

import re

_LINE, _BLOCK = r"//[^\n]*", r"/\*.*?(?:\*/|\Z)"
_DOUBLE = r'"(?:\\.|[^"\\\n])*(?:"|(?=\n)|\Z)'
_SINGLE = r"'(?:\\.|[^'\\\n])*(?:'|(?=\n)|\Z)"
_TRIPLES = r'"""(?:\\.|[^\\])*?(?:"""|\Z)'
# A slash opens a pattern and not a division where no value stands before it.
_IN_PATTERN = r"(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])"
_PATTERN = r"(?:(?<=[(,=:\[!&|?{};\n+\-*%<>~^])|(?<=return))[ \t]*/(?!\*)" + _IN_PATTERN + "+/"

_HIDDEN = {
    "python": [_TRIPLES, _TRIPLES.replace('"', "'"), r"#[^\n]*", _DOUBLE, _SINGLE],
    "c++": [_LINE, _BLOCK, r'R"(?P<mark>[^(\s]*)\(.*?(?:\)(?P=mark)"|\Z)', _DOUBLE, _SINGLE],
    "java": [_LINE, _BLOCK, _TRIPLES, _DOUBLE, _SINGLE],
    "javascript": [_LINE, _BLOCK, _DOUBLE, _SINGLE, r"`(?:\\.|[^`\\])*(?:`|\Z)", _PATTERN],
    "go": [_LINE, _BLOCK, _DOUBLE, _SINGLE, r"`[^`]*(?:`|\Z)"],
    # 'a alone is a lifetime.
    "rust": [
        _LINE,
        _BLOCK,
        r'r(?P<mark>#*)".*?(?:"(?P=mark)|\Z)',
        r'"(?:\\.|[^"\\])*(?:"|\Z)',
        r"'(?:\\(?:u\{\w*\}|x\w\w|.)|[^'\\\n])'",
    ],
}
_HIDDEN["csharp"] = _HIDDEN["c#"] = _HIDDEN["java"]
_PATTERNS = {
    language: re.compile("|".join(kinds), re.DOTALL) for language, kinds in _HIDDEN.items()
}


def mask(code: str, language: str) -> str:
    """Returns code of the same length, with blanks instead of comments and texts.

    Line ends stay where they are, but not those inside a comment or text of several lines: there
    no line begins. What is not ended is hidden to the end of the code.

    Args:
        code: may begin and end anywhere outside a comment or text.
        language: a key of `codegeex.languages`; of an unknown one nothing is hidden.
    """
    pattern = _PATTERNS.get(language)
    return code if pattern is None else pattern.sub(lambda found: " " * len(found[0]), code)
