"""What an answer may be: JSON of a schema, a regular expression, a grammar, one of some texts.

A grammar is compiled for a tokenizer by llguidance and says before every token which ones may
come. It works on bytes: any cut of the text into tokens is allowed, characters may be cut too, and
special tokens are never allowed but for the end of the answer. Letters: V vocabulary.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from glm_core.extras import require
from glm_core.infer.beginning import Beginning, Begins
from glm_core.infer.grammar_tokens import GrammarTokens, first_line
from glm_core.tokenizer.protocol import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher

MAX_CHARS = 200_000
"""Longest grammar, as llguidance reads it."""
_WHITE_SPACE = r"( |\n[ \t]{0,64})?"
"""Between the parts of JSON: nothing, a space, or a line break and an indent. JSON allows more, in
which a model that is not sure what to write can lose itself."""
_JSON_OPTIONS: Any = {"whitespace_pattern": _WHITE_SPACE, "lenient": False, "coerce_one_of": False}


@dataclass(frozen=True)
class JsonSchema:
    """JSON that a schema describes; properties come in the schema's order."""

    schema: Mapping[str, Any] | bool


@dataclass(frozen=True)
class JsonObject:
    """Any JSON object."""


@dataclass(frozen=True)
class Regex:
    """Text that a regular expression matches from beginning to end; Rust's syntax."""

    pattern: str


@dataclass(frozen=True)
class Lark:
    """Text of a context-free grammar whose rule `start` is the whole; llguidance's Lark syntax."""

    text: str


@dataclass(frozen=True)
class Choices:
    """One of these texts."""

    texts: tuple[str, ...]


Grammar = JsonSchema | JsonObject | Regex | Lark | Choices | Begins


class GrammarState:
    """What one answer may still become; not for two threads at a time.

    Args:
        matcher: at the beginning of the answer; its own.
        tokens: the tokenizer's.
        not_first: ids that the answer cannot begin with.
    """

    allows_all = False
    """What a grammar requires is never behind it."""

    def __init__(
        self, matcher: LLMatcher, tokens: GrammarTokens[CompiledGrammar], not_first: NDArray[Any]
    ) -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._excluded = not_first
        self._mask: NDArray[np.bool_] | None = None

    def mask(self) -> NDArray[np.bool_]:
        """Returns which tokens may come next, [V]; the end is allowed exactly when `may_end`.

        Raises:
            ValueError: the grammar is too intricate to go on, or the vocabulary has no token for
                what must come.
        """
        if self._mask is None:
            mask = self._tokens.unpacked(self._matcher.compute_bitmask())
            mask[self._excluded] = False
            mask[self._tokens.stop_ids] = self.may_end
            if self._matcher.is_error() or not mask.any():
                raise ValueError(f"the grammar cannot go on: {self._fault()}")
            self._mask = mask
        return self._mask

    def accept(self, token: int) -> None:
        """Takes a token of the answer, not its end.

        Raises:
            ValueError: the grammar does not allow it.
        """
        self._mask, self._excluded = None, self._excluded[:0]
        if not (self._tokens.is_text[token] and self._matcher.consume_token(token)):
            raise ValueError(f"the grammar does not allow the token {token} here")

    @property
    def may_end(self) -> bool:
        """Whether the text so far is whole."""
        return self._matcher.is_accepting()

    @property
    def is_done(self) -> bool:
        """Whether nothing but the end can come."""
        return self.may_end and int(self.mask().sum()) == len(self._tokens.stop_ids)

    def _fault(self) -> str:
        error = first_line(self._matcher.get_error())
        if not error or "NoExtensionBias" in error:
            return "the vocabulary has no token for what must come next"
        return f"it is too intricate ({error}); make it simpler"


class CompiledGrammar:
    """A grammar for one tokenizer; for any number of answers and threads.

    Args:
        source: the grammar as llguidance reads it.
        tokens: the tokenizer's.

    Raises:
        ValueError: the grammar is malformed, unsupported or too large.
    """

    def __init__(self, source: str, tokens: GrammarTokens[CompiledGrammar]) -> None:
        self._source = source
        self._tokens = tokens
        self._lock = threading.Lock()
        self.start(continues=True).mask()  # some faults come out only here

    def start(self, continues: bool = False) -> GrammarState:
        """Begins an answer.

        Args:
            continues: whether the answer goes on from the prompt's text. Otherwise it is a text of
                its own: a tokenizer that puts a space before every text expects it before this
                one, where it is no part of the text.
        """
        spaced = self._tokens.spaces_texts and not continues
        with self._lock:
            matcher = (self._spaced if spaced else self._plain).deep_copy()
        return GrammarState(
            matcher, self._tokens, self._tokens.shown_spaces[: None if spaced else 0]
        )

    @cached_property
    def _plain(self) -> LLMatcher:
        return self._matcher("@answer")

    @cached_property
    def _spaced(self) -> LLMatcher:
        return self._matcher('" " @answer')

    def _matcher(self, start: str) -> LLMatcher:
        # no_forcing: where there is no choice of text, llguidance would else allow only the token
        # that its own cut of that text begins with.
        outer = f'%llguidance {{"no_forcing": true}}\nstart: {start}'
        named = [{"lark_grammar": outer}, {**json.loads(self._source), "name": "answer"}]
        return self._tokens.matcher(json.dumps({"grammars": named}))


def compile_grammar(grammar: Grammar, tokenizer: Tokenizer) -> CompiledGrammar | Beginning:
    """Compiles a grammar for a tokenizer; the last ones compiled are kept. Thread-safe.

    Raises:
        ValueError: the grammar is malformed, unsupported or too large, or the tokenizer cannot
            write JSON.
        MissingExtraError: llguidance is not installed; `Begins` does not need it.
    """
    if isinstance(grammar, Begins):
        return Beginning(grammar.data, tokenizer)
    source = _source(grammar)
    if len(source) > MAX_CHARS:
        raise ValueError(
            f"the {_name(grammar)} has {len(source):,} characters: it must have at most "
            f"{MAX_CHARS:,}"
        )
    with _LOCK:
        tokens = _TOKENS.get(tokenizer)
        if tokens is None:
            tokens = _TOKENS[tokenizer] = GrammarTokens(tokenizer)
    if isinstance(grammar, JsonSchema | JsonObject) and tokens.missing_characters:
        raise ValueError(
            f"the {tokenizer.kind} tokenizer has no token for {tokens.missing_characters[0]!r}: "
            "JSON needs one for every printable ASCII character"
        )
    try:
        return tokens.cached(source, lambda: CompiledGrammar(source, tokens))
    except ValueError as error:
        raise ValueError(f"the {_name(grammar)} cannot be used: {error}") from error


_TOKENS: WeakKeyDictionary[Tokenizer, GrammarTokens[CompiledGrammar]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _source(grammar: JsonSchema | JsonObject | Regex | Lark | Choices) -> str:
    """The grammar as llguidance reads it, in JSON."""
    rules = require("llguidance", extra="serve").LLMatcher
    match grammar:
        case JsonSchema(schema):
            return _json_source(rules, schema)
        case JsonObject():
            return _json_source(rules, {"type": "object"})
        case Regex(pattern):
            return _first(rules.grammar_from_regex(pattern))
        case Lark(text):
            return json.dumps({"lark_grammar": text})
        case Choices(texts):
            if not texts or "" in texts:
                raise ValueError(f"the choices are {texts!r}: give at least one, and no empty text")
            quoted = " | ".join(json.dumps(text) for text in texts)
            return json.dumps({"lark_grammar": f"start: {quoted}"})


def _first(grammars: str) -> str:
    """The only grammar of a list of llguidance's."""
    (only,) = json.loads(grammars)["grammars"]
    return json.dumps(only)


def _json_source(rules: Any, schema: object) -> str:
    if schema is True:
        schema = {}  # both allow everything
    if not isinstance(schema, Mapping):
        raise ValueError(f"the JSON schema is {schema!r}: it must be an object")
    try:
        text = json.dumps(dict(schema), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the JSON schema is no JSON: {error}") from error
    return _first(rules.grammar_from_json_schema(text, overrides=_JSON_OPTIONS))


def _name(grammar: Grammar) -> str:
    names = {JsonSchema: "JSON schema", Regex: "regular expression", Lark: "Lark grammar"}
    return names.get(type(grammar), "grammar")
