"""Where an answer ends: a model goes on writing when its function is over.

Source: the rules of THUDM/CodeGeeX2 evaluation/utils.py, which counts brackets in comments and
texts too; here they are left out of the count.
"""

from __future__ import annotations

import re

from codegeex.evaluate.mask import mask

_BEGINNINGS = {
    "c++": "\nint main(",
    "go": "\nfunc main(",
    "rust": "\nfn main(",
    "java": "public static void main",
}
"""What no answer holds, but a whole program does."""

_UNINDENTED = re.compile(r"^[^ \t\r\n]", re.MULTILINE)


def finished(text: str, language: str) -> str | None:
    """Returns the answer in a text that holds more; None while it may still go on.

    Args:
        text: what a model wrote after the head of a function.
        language: a key of `codegeex.languages`.
    """
    if language == "python":
        end = _unindented(text)
        return None if end is None else text[:end]
    masked = mask(text, language)
    ends = _closing(masked, depth=1)
    main = _main(masked, language)
    if ends is None and main is None:
        return None
    if ends is None or (main is not None and main < ends):
        assert main is not None
        return _closed(text[:main], language)
    return _closed(text[:ends], language)


def cleaned(text: str, language: str) -> str:
    """Returns the answer in a text: what is finished, or all of it where nothing is."""
    answer = finished(text, language)
    return text if answer is None else answer


def _unindented(text: str) -> int | None:
    """Returns where the first line without indentation begins, outside texts of several lines."""
    masked = mask(text, "python")
    for found in _UNINDENTED.finditer(text):
        if found.start() == 0 or masked[found.start() - 1] == "\n":
            return found.start()
    return None


def _closing(masked: str, depth: int) -> int | None:
    """Returns where the bracket ends that closes `depth` more blocks than were opened."""
    for found in re.finditer(r"[{}]", masked):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return found.end()
    return None


def _main(masked: str, language: str) -> int | None:
    beginning = _BEGINNINGS.get(language)
    found = -1 if beginning is None else masked.find(beginning)
    return None if found < 0 else found


def _closed(answer: str, language: str) -> str:
    """Returns the answer with the class closed around Java's method."""
    if language != "java":
        return answer
    masked = mask(answer, language)
    missing = 2 + masked.count("{") - masked.count("}")
    return answer + "\n}" * missing
