"""A tokenizer's vocabulary as llguidance sees it: the bytes of every id.

Letters: V vocabulary.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from glm_core.extras import require
from glm_core.tokenizer.protocol import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher

MAX_CACHED = 64
"""Grammars kept for each tokenizer."""
_PRINTABLE = [bytes([code]) for code in range(0x20, 0x7F)]

Value = TypeVar("Value")


class _Bytes:
    """What llguidance asks a tokenizer for; with no_forcing it never asks for text cut up."""

    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], special_ids: Sequence[int], eos_id: int) -> None:
        self.tokens = tokens
        self.special_token_ids = special_ids
        self.eos_token_id = eos_id

    def __call__(self, text: bytes | str) -> list[int]:
        raise NotImplementedError("grammars are over bytes and cut no text into tokens")


class GrammarTokens(Generic[Value]):
    """The vocabulary of one tokenizer, and the grammars compiled for it.

    Raises:
        MissingExtraError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._library: Any = require("llguidance", extra="serve")
        self.num_ids = tokenizer.vocab_size
        self.stop_ids = np.asarray(tokenizer.stop_ids, dtype=np.int64)
        self.is_text = np.ones(self.num_ids, dtype=np.bool_)
        self.is_text[list(tokenizer.special_ids)] = False
        pieces = [tokenizer.decode_bytes([token]) for token in range(self.num_ids)]
        known = set(pieces)
        self.missing_characters = [char.decode() for char in _PRINTABLE if char not in known]
        """Printable ASCII characters without a token of their own."""
        self.spaces_texts = tokenizer.decode_bytes(tokenizer.encode("a")).startswith(b" ")
        """Whether encoding puts a space before every text."""
        self.shown_spaces = self._shown_spaces(pieces, tokenizer)
        """Ids whose space at the beginning of a text is not the one that encoding puts there."""
        self._tokenizer = self._read(pieces, tokenizer)
        self._lock = threading.Lock()
        self._compiled: OrderedDict[str, Value] = OrderedDict()

    def matcher(self, source: str) -> LLMatcher:
        """Compiles a grammar.

        Raises:
            ValueError: it is malformed, unsupported or too large.
        """
        matcher: LLMatcher = self._library.LLMatcher(
            self._tokenizer, source, log_level=0, limits=self._limits()
        )
        if matcher.is_error():
            raise ValueError(first_line(matcher.get_error()))
        return matcher

    def cached(self, source: str, compiled: Callable[[], Value]) -> Value:
        """Returns what `compiled` gives for `source`, now or on an earlier call."""
        with self._lock:
            if source not in self._compiled:
                self._compiled[source] = compiled()
                if len(self._compiled) > MAX_CACHED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(source)
            return self._compiled[source]

    def unpacked(self, bits: bytes) -> NDArray[np.bool_]:
        """Which ids a mask of llguidance allows, [V]; no special token is among them."""
        packed = np.frombuffer(bits, dtype=np.uint8)
        allowed = np.unpackbits(packed, count=self.num_ids, bitorder="little").view(np.bool_)
        return np.logical_and(allowed, self.is_text, out=allowed)

    def _shown_spaces(self, pieces: Sequence[bytes], tokenizer: Tokenizer) -> NDArray[np.int64]:
        """A byte that is a space, or a run of them, is shown even at the beginning."""
        spaced = [token for token, piece in enumerate(pieces) if piece.startswith(b" ")]
        shown = [token for token in spaced if tokenizer.decode([token]).encode() == pieces[token]]
        return np.asarray(shown if self.spaces_texts else [], dtype=np.int64)

    def _read(self, pieces: Sequence[bytes], tokenizer: Tokenizer) -> Any:
        # Names that no grammar can know: a Lark grammar may name special tokens.
        special_ids = sorted(tokenizer.special_ids)
        tokens = list(pieces)
        for token in special_ids:
            tokens[token] = f"<|{token}|>".encode()
        stop_ids = list(tokenizer.stop_ids)
        wrapper = self._library.TokenizerWrapper(_Bytes(tokens, special_ids, stop_ids[0]))
        return self._library.LLTokenizer(wrapper, n_vocab=self.num_ids, eos_token=stop_ids)

    def _limits(self) -> Any:
        """About 20 ms to compile, 15 ms for a token, and 40 MB for what is learned meanwhile."""
        return self._library.LLParserLimits(
            initial_lexer_fuel=1_000_000,
            step_lexer_fuel=200_000,
            step_max_items=50_000,
            max_lexer_states=20_000,
            max_grammar_size=100_000,
            verbose_errors=False,
        )


def first_line(text: str) -> str:
    """The first line of a message, shortened."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= 200 else f"{line[:200]} ..."
