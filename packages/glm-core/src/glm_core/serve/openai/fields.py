"""Fields of a request's JSON, checked; each error says which field it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class BadField(ValueError):
    """A field of a request is wrong.

    Args:
        param: where it is, as in `messages[2].content`.
        reason: what is wrong and what would be right.
    """

    def __init__(self, param: str, reason: str) -> None:
        super().__init__(f"{param}: {reason}")
        self.param = param


def mapping_of(value: Any, param: str) -> Mapping[str, Any]:
    """Returns the value if it is a JSON object.

    Raises:
        BadField: it is none.
    """
    if not isinstance(value, Mapping):
        raise BadField(param, f"is {_shown(value)}: it must be an object")
    return value


def list_of(value: Any, param: str) -> list[Any]:
    """Returns the value if it is a JSON array.

    Raises:
        BadField: it is none.
    """
    if not isinstance(value, list | tuple):
        raise BadField(param, f"is {_shown(value)}: it must be a list")
    return list(value)


def text_of(value: Any, param: str) -> str:
    """Returns the value if it is text that UTF-8 can write.

    Raises:
        BadField: it is none.
    """
    if not isinstance(value, str):
        raise BadField(param, f"is {_shown(value)}: it must be text")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise BadField(param, "holds half a character (a lone surrogate)")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
