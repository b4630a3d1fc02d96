"""Rules that end a completion, each a function of the text so far."""

from codegeex.complete.rules.block import Block
from codegeex.complete.rules.brackets import Brackets
from codegeex.complete.rules.following import Following, RestOfLine
from codegeex.complete.rules.lines import MaxLines, MinIndent, OneLine
from codegeex.complete.rules.repeats import Repeats
from codegeex.complete.rules.rule import Rule, Stop, first_stop, sure_of
from codegeex.complete.rules.words import Words

__all__ = [
    "Block",
    "Brackets",
    "Following",
    "MaxLines",
    "MinIndent",
    "OneLine",
    "Repeats",
    "RestOfLine",
    "Rule",
    "Stop",
    "Words",
    "first_stop",
    "sure_of",
]
