"""Compares answers with golden ones, in which what differs each time is a word in brackets."""

from __future__ import annotations

from typing import Any

_WORDS: dict[str, tuple[type, ...]] = {
    "<text>": (str,),
    "<text or null>": (str, type(None)),
    "<int>": (int,),
    "<number>": (int, float),
    "<bool>": (bool,),
    "<object>": (dict,),
    "<object or null>": (dict, type(None)),
    "<list>": (list,),
}


def difference(golden: Any, given: Any, where: str = "") -> str:
    """Returns where an answer differs from the golden one; empty if nowhere.

    A key that ends with `?` may be missing.
    """
    if isinstance(golden, str) and golden.startswith("<text with "):
        part = golden.removeprefix("<text with ").removesuffix(">")
        is_there = isinstance(given, str) and part in given
        return "" if is_there else f"{where}: {part!r} is not in {given!r}"
    if isinstance(golden, str) and golden in _WORDS:
        kinds = _WORDS[golden]
        is_right = isinstance(given, kinds) and (bool in kinds or not isinstance(given, bool))
        return "" if is_right else f"{where}: {given!r} is no {golden}"
    if isinstance(golden, dict) and isinstance(given, dict):
        names = {name.removesuffix("?"): name for name in golden}
        missing = [one for one, name in names.items() if one not in given and name == one]
        more = [name for name in given if name not in names]
        if missing or more:
            return f"{where}: misses {missing}, has {more} beside"
        found = (
            difference(golden[names[name]], value, f"{where}/{name}")
            for name, value in given.items()
        )
        return next(filter(None, found), "")
    if isinstance(golden, list) and isinstance(given, list) and len(golden) == len(given):
        pairs = enumerate(zip(golden, given, strict=True))
        found = (difference(one, other, f"{where}/{index}") for index, (one, other) in pairs)
        return next(filter(None, found), "")
    is_same = type(golden) is type(given) and golden == given
    return "" if is_same else f"{where}: {given!r} is not {golden!r}"
