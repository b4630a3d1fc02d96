from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from codegeex.hole import Mode
from codegeex.lsp.settings import Offer, Settings, spelt


def test_settings_take_the_editors_values() -> None:
    told = {"maxTokens": 8, "mode": "line", "timeLimit": 1, "completionItems": "never"}
    changed = Settings().changed(told)
    assert (changed.max_tokens, changed.mode, changed.time_limit) == (8, Mode.line, 1.0)
    assert changed.completion_items is Offer.never
    assert changed.candidates == Settings().candidates


def test_settings_are_found_when_they_are_in_their_section() -> None:
    assert Settings().changed({"codegeex": {"maxLines": 3}, "other": 1}).max_lines == 3


@pytest.mark.parametrize("told", [None, {}, {"codegeex": None}, {"codegeex": {}}])
def test_settings_stay_when_nothing_is_told(told: Any) -> None:
    assert Settings(max_tokens=7).changed(told) == Settings(max_tokens=7)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"maxToken": 8}, r"codegeex\.maxToken is unknown: there are maxTokens, maxLines, mode"),
        ({"maxTokens": 0}, r"codegeex\.maxTokens is 0: it must be at least 1"),
        ({"maxTokens": "8"}, r"codegeex\.maxTokens is '8': it must be a whole number"),
        ({"maxTokens": True}, r"codegeex\.maxTokens is True: it must be a whole number"),
        ({"automatic": 1}, r"codegeex\.automatic is 1: it must be true or false"),
        ({"temperature": "hot"}, r"codegeex\.temperature is 'hot': it must be a number"),
        ({"temperature": 0}, r"codegeex\.temperature is 0\.0: it must be above 0, at most 2"),
        ({"timeLimit": -1}, r"codegeex\.timeLimit is -1\.0: it must be at least 0"),
        ({"maxLines": -1}, r"codegeex\.maxLines is -1: it must be at least 0"),
        ({"candidates": 9}, r"codegeex\.candidates is 9: it must be 1 to 8"),
        ({"mode": "word"}, r"codegeex\.mode is 'word': it must be one of line, block"),
        ({"mode": ["line"]}, r"codegeex\.mode is \['line'\]: it must be one of"),
        ({"completionItems": True}, r"codegeex\.completionItems is True: .* auto, always, never"),
        ([1], r"codegeex is \[1\]: it must be an object of settings"),
    ],
)
def test_error_names_the_setting_when_it_is_wrong(told: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings().changed(told)


def test_names_are_spelt_as_in_an_editor() -> None:
    assert [spelt(one.name) for one in fields(Settings)][:3] == ["maxTokens", "maxLines", "mode"]
    assert spelt("completion_items") == "completionItems"
