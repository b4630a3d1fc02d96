"""Rules that end a completion, each a function of the text so far."""

from codegeex.complete.rules.lines import MinIndent, OneLine
from codegeex.complete.rules.rule import Rule, Stop, first_stop, sure_of
from codegeex.complete.rules.words import Words

__all__ = ["MinIndent", "OneLine", "Rule", "Stop", "Words", "first_stop", "sure_of"]
