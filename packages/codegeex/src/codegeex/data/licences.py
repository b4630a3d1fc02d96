"""Which licences allow their text to be trained on without conditions on the result.

Permissive is what asks for no more than a notice. Copyleft of any strength (GPL, LGPL, AGPL, MPL,
EPL, CDDL, ...), proprietary and unknown licences are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_PERMISSIVE = frozenset(
    "mit mit-0 mit-cmu mit-modern-variant bsd-2-clause bsd-3-clause bsd-2-clause-patent 0bsd bsd "
    "bsd-4-clause-uc bsd-3-clause-lbnl apache-2.0 apache-1.1 isc psf-2.0 python-2.0 python-2.0.1 "
    "cnri-python unlicense zlib libpng-2.0 hpnd hpnd-sell-variant bsl-1.0 cc0-1.0 ncsa postgresql "
    "blueoak-1.0.0 wtfpl x11 tcl unicode-3.0 unicode-dfs-2016 afl-3.0 zpl-2.1 ftl".split()
)
_WORDS = [
    (re.compile(pattern), name)
    for pattern, name in [
        (r"(?:the )?(?:expat )?mit(?: licen[cs]e)?(?: \(mit\))?", "MIT"),
        (r"mit-cmu|historical permission notice and disclaimer(?: \(hpnd\))?|hpnd", "HPND"),
        (r"(?:apache|asl|al)(?: software)?(?: licen[cs]e)?,?(?: ?-?v?(?:ersion )?2(?:\.0)?)?"
         r"(?: licen[cs]e)?", "Apache-2.0"),
        (r"(?:the )?(?:new|modified|revised|simplified|3-clause|2-clause|three-clause|two-clause)?"
         r" ?bsd(?: ?-?[234][ -]clause)?(?: licen[cs]e)?", "BSD"),
        (r"isc(?: licen[cs]e)?(?: \(iscl\))?", "ISC"),
        (r"(?:psf|psfl|python|python software foundation)(?: licen[cs]e)?", "PSF-2.0"),
        (r"(?:the )?unlicense(?: \(unlicense\))?", "Unlicense"),
        (r"zlib(?:/libpng)?(?: licen[cs]e)?", "Zlib"),
        (r"boost software licen[cs]e 1\.0 \(bsl-1\.0\)", "BSL-1.0"),
        (r"cc0 1\.0 universal(?: \(cc0 1\.0\) public domain dedication)?|public domain", "CC0-1.0"),
    ]
]  # fmt: skip
_OPENINGS = [
    (re.compile(r"permission is hereby granted, free of charge|^mit licen[cs]e"), "MIT"),
    (re.compile(r"redistribution and use in source and binary forms|^bsd [23]-clause"), "BSD"),
    (re.compile(r"^apache licen[cs]e\s+version 2\.0"), "Apache-2.0"),
]
_COPYLEFT = re.compile(
    r"\b(?:[al]?gpl|mpl|epl|cddl|eupl|osl|sspl|busl|cecill)\b|general public licen[cs]e"
    r"|mozilla public|eclipse public|creative commons.*(?:share ?alike|non-?commercial)|proprietary"
)
_CLASSIFIER = "License :: OSI Approved :: "
_TOKEN = re.compile(r"\(|\)|[^\s()]+")


def is_permissive(expression: str) -> bool:
    """Whether an SPDX expression can be met by permissive licences alone.

    `OR` leaves the choice, `AND` binds both; an exception (`WITH`) only gives more rights.
    """
    try:
        return _Expression(expression).value()
    except ValueError:
        return False


def licence_of(expression: str, text: str, classifiers: Iterable[str]) -> str:
    """The licence that package metadata tells, as SPDX where that is known; "" where it is not.

    Args:
        expression: the field License-Expression.
        text: the field License: a name, an expression or the licence itself.
        classifiers: all fields Classifier.
    """
    if expression:
        return expression
    named = [item.removeprefix(_CLASSIFIER) for item in classifiers if item.startswith(_CLASSIFIER)]
    told = " ".join(text.lower().split())
    if named:
        known = [_name(item.lower()) or item for item in named]
        if _COPYLEFT.search(told[:200]):
            return told[:60]
        return " OR ".join(known) if all(map(_name_known, known)) else " AND ".join(known)
    return _from_text(told, text)


class _Expression:
    """A reader of SPDX expressions: OR binds less than AND."""

    def __init__(self, expression: str) -> None:
        self._tokens = _TOKEN.findall(expression)
        self._at = 0

    def value(self) -> bool:
        """Raises ValueError for what is no expression."""
        value = self._either()
        if self._at != len(self._tokens):
            raise ValueError("text behind the expression")
        return value

    def _either(self) -> bool:
        value = self._both()
        while self._word().upper() == "OR":
            self._at += 1
            value = self._both() or value
        return value

    def _both(self) -> bool:
        value = self._one()
        while self._word().upper() == "AND":
            self._at += 1
            value = self._one() and value
        return value

    def _one(self) -> bool:
        word = self._word()
        self._at += 1
        if word == "(":
            value = self._either()
            if self._word() != ")":
                raise ValueError("a parenthesis is open")
            self._at += 1
            return value
        if not word or word == ")":
            raise ValueError("a licence is missing")
        if self._word().upper() == "WITH":
            self._at += 2
        return word.lower().removesuffix("+") in _PERMISSIVE

    def _word(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""


def _name(words: str) -> str:
    """SPDX name of a licence that is called by a common name; "" for any other."""
    words = words.strip(" .'\"")
    return next((name for pattern, name in _WORDS if pattern.fullmatch(words)), "")


def _name_known(name: str) -> bool:
    return is_permissive(name)


def _from_text(told: str, original: str) -> str:
    if not told or told == "unknown":
        return ""
    if is_permissive(original.strip()):
        return original.strip()
    parts = [_name(part) for part in re.split(r"\s+(?:or|and)\s+|/|,\s*(?=[a-z])", told)]
    if _name(told):
        return _name(told)
    if parts and all(parts) and len(told) < 100:
        return " AND ".join(parts)
    if _COPYLEFT.search(told[:200]):
        return told[:60]
    head = told[:3000]
    return next((name for pattern, name in _OPENINGS if pattern.search(head)), told[:60])
