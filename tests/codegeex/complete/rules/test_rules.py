"""What every rule keeps to, whatever the text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from codegeex.complete.fit import rules_for
from codegeex.complete.options import Options
from codegeex.hole import Hole, Mode

PIECES = st.sampled_from(
    ["a", "foo", "(", ")", "]", "{", "}", '"', "'", '""', "\n", "\n", "    ", "\t", " ", ":", ",",
     "#", "/", "*", "return x", "\\", "\n    ", "\n\n", "def f():", "END", "`", "x\n",
     "}\n", "ab" * 25]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=16).map("".join)


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS, TEXTS, st.sampled_from(["python", "c", "rust", "javascript"]))
def test_rule_does_not_change_its_mind(prefix: str, suffix: str, text: str, language: str) -> None:
    for mode in Mode:
        hole = Hole(prefix=prefix, suffix=suffix, language=language, mode=mode)
        rules, _ = rules_for(hole, Options(stop=("END", "a\n"), min_indent=2, max_lines=2))
        for rule in rules:
            decided, sure = rule.look(text), 0
            for size in range(len(text) + 1):
                stop = rule.look(text[:size])
                assert stop == (decided if decided and size >= decided.at else None), rule
                if stop is not None:
                    assert sure <= stop.keep <= stop.at <= size
                    break
                now = rule.sure(text[:size])
                assert sure <= now <= size, rule
                sure = now


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_trim_takes_nothing_that_it_does_not_hold(prefix: str, suffix: str, text: str) -> None:
    hole = Hole(prefix=prefix, suffix=suffix, language="python")
    _, trims = rules_for(hole, Options())
    for trim in trims:
        held = [trim.hold(text[:size]) for size in range(len(text) + 1)]
        assert held == sorted(held), trim
        for size, hold in enumerate(held):
            assert hold <= trim.cut(text[:size]) <= size, trim
