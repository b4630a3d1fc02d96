"""What an editor may choose: `initializationOptions`, and its settings' section `codegeex`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from codegeex.hole import Mode

SECTION = "codegeex"


class Offer(StrEnum):
    """Whether completions are offered in the editor's list, too."""

    auto = "auto"
    """To an editor that does not know inline completions."""
    always = "always"
    never = "never"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The choices. In an editor their names have capitals: `max_tokens` is `codegeex.maxTokens`."""

    max_tokens: int = 64
    """Longest completion in tokens."""
    max_lines: int = 0
    """Longest completion in lines; 0 for as many as belong there."""
    mode: Mode = Mode.block
    """line: never more than the rest of the line."""
    candidates: int = 3
    """Completions to choose from when one asks for them by hand."""
    temperature: float = 0.6
    """Of all candidates but the first."""
    time_limit: float = 2.0
    """Seconds after which a completion ends that has a whole line; 0 for none."""
    automatic: bool = True
    """Whether anything is offered to one who only types."""
    context: bool = True
    """Whether other files of the workspace are looked at."""
    completion_items: Offer = Offer.auto
    """Whether completions are offered in the editor's list, too; told at the start."""

    def __post_init__(self) -> None:
        _require(self.max_tokens >= 1, "max_tokens", self.max_tokens, "be at least 1")
        _require(self.max_lines >= 0, "max_lines", self.max_lines, "be at least 0")
        _require(1 <= self.candidates <= 8, "candidates", self.candidates, "be 1 to 8")
        _require(
            0 < self.temperature <= 2, "temperature", self.temperature, "be above 0, at most 2"
        )
        _require(0 <= self.time_limit, "time_limit", self.time_limit, "be at least 0")

    def changed(self, told: Any) -> Settings:
        """Returns these settings with what an editor told in their place.

        Args:
            told: an object of settings, one that has it under `codegeex`, or None.

        Raises:
            ValueError: a setting is unknown, or its value is wrong.
        """
        if isinstance(told, Mapping) and SECTION in told:
            told = told[SECTION]
        if told is None:
            return self
        if not isinstance(told, Mapping):
            raise ValueError(f"{SECTION} is {told!r}: it must be an object of settings")
        return replace(self, **dict(_checked(name, value) for name, value in told.items()))


def spelt(name: str) -> str:
    """Returns a setting's name as editors have it."""
    first, *words = name.split("_")
    return first + "".join(word.capitalize() for word in words)


_DEFAULTS = {spelt(one.name): (one.name, getattr(Settings, one.name)) for one in fields(Settings)}
_KINDS = {bool: "be true or false", int: "be a whole number", float: "be a number"}


def _checked(spelling: str, value: Any) -> tuple[str, Any]:
    """Returns a setting's name and its value in its type."""
    if spelling not in _DEFAULTS:
        known = ", ".join(_DEFAULTS)
        raise ValueError(f"{SECTION}.{spelling} is unknown: there are {known}")
    name, default = _DEFAULTS[spelling]
    kind = type(default)
    if issubclass(kind, StrEnum):
        _require(value in list(kind), name, value, f"be one of {', '.join(kind)}")
        return name, kind(value)
    if kind is float and type(value) is int:
        return name, float(value)
    _require(type(value) is kind, name, value, _KINDS.get(kind, ""))
    return name, value


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{SECTION}.{spelt(name)} is {value!r}: it must {rule}")
