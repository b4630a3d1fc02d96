"""Answers that begin with given bytes, whichever tokens these are cut into.

It is how a prompt's last token is taken back: the text ends with `retu`, the model has hardly ever
seen a text cut there, and is asked for one that begins with `retu` instead. Unlike a grammar it
costs a search in a sorted list, and nothing once the bytes have come. Letters: V vocabulary.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from glm_core.tokenizer.protocol import Tokenizer


@dataclass(frozen=True)
class Begins:
    """Any text whose bytes begin so."""

    data: bytes


class TokenBytes:
    """The bytes of a tokenizer's ids, in order; special ids, which have none, are left out.

    Args:
        tokenizer: the model's.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.num_ids = tokenizer.vocab_size
        special_ids = tokenizer.special_ids
        self.by_id = [tokenizer.decode_bytes([token]) for token in range(self.num_ids)]
        order = [
            token
            for token in sorted(range(self.num_ids), key=self.by_id.__getitem__)
            if self.by_id[token] and token not in special_ids
        ]
        self._sorted = [self.by_id[token] for token in order]
        self._ids = np.asarray(order, dtype=np.int64)

    def beginning_with(self, data: bytes) -> NDArray[np.int64]:
        """Returns the ids whose bytes begin with `data`."""
        begin, end = self._range(data)
        return self._ids[begin:end]

    def has_longer(self, data: bytes) -> bool:
        """Whether some token begins with `data` and goes on."""
        _, end = self._range(data)
        return end > bisect_right(self._sorted, data)

    def possible(self, data: bytes) -> NDArray[np.int64]:
        """Returns the ids that a text beginning with `data` can begin with."""
        shorter = [self._ids[slice(*self._equal(data[:size]))] for size in range(1, len(data))]
        return np.concatenate([*shorter, self.beginning_with(data)])

    def _range(self, data: bytes) -> tuple[int, int]:
        begin = bisect_left(self._sorted, data)
        after = _successor(data)
        return begin, len(self._sorted) if after is None else bisect_left(self._sorted, after)

    def _equal(self, data: bytes) -> tuple[int, int]:
        return bisect_left(self._sorted, data), bisect_right(self._sorted, data)


def token_bytes(tokenizer: Tokenizer) -> TokenBytes:
    """Returns the bytes of a tokenizer's ids, which are sorted once. Thread-safe."""
    with _LOCK:
        found = _KNOWN.get(tokenizer)
        if found is None:
            found = _KNOWN[tokenizer] = TokenBytes(tokenizer)
        return found


class BeginningState:
    """How much of the bytes one answer still lacks; not for two threads at a time.

    Args:
        data: what the answer must begin with.
        tokens: the tokenizer's.
    """

    is_done = False
    """Something can always follow."""

    def __init__(self, data: bytes, tokens: TokenBytes) -> None:
        self._rest = data
        self._tokens = tokens

    @property
    def allows_all(self) -> bool:
        """Whether the bytes have come: nothing is required any more."""
        return not self._rest

    @property
    def may_end(self) -> bool:
        """Whether the answer may end here."""
        return self.allows_all

    def mask(self) -> NDArray[np.bool_]:
        """Returns which tokens may come next, [V].

        Raises:
            ValueError: the vocabulary cannot write the bytes.
        """
        ids = self._tokens.possible(self._rest)
        if not ids.size:
            raise ValueError(
                f"the answer cannot begin so: the vocabulary has no token for {self._rest!r}"
            )
        mask = np.zeros(self._tokens.num_ids, dtype=np.bool_)
        mask[ids] = True
        return mask

    def accept(self, token: int) -> None:
        """Takes a token of the answer.

        Raises:
            ValueError: the answer cannot have it here.
        """
        piece = self._tokens.by_id[token]
        size = min(len(piece), len(self._rest))
        if not piece or piece[:size] != self._rest[:size]:
            raise ValueError(
                f"the answer cannot have the token {token} here: it must go on with {self._rest!r}"
            )
        self._rest = self._rest[size:]


class Beginning:
    """Bytes with which answers begin, for one tokenizer; for any number of answers and threads.

    Args:
        data: at least one byte.
        tokenizer: the model's.

    Raises:
        ValueError: there are no bytes, or the vocabulary has no token that they can begin with.
    """

    def __init__(self, data: bytes, tokenizer: Tokenizer) -> None:
        if not data:
            raise ValueError("the beginning is empty: give at least one byte, or no grammar")
        self._data = data
        self._tokens = token_bytes(tokenizer)
        self.start().mask()

    def start(self, continues: bool = True) -> BeginningState:
        """Begins an answer; the bytes are those of its tokens, wherever it stands."""
        return BeginningState(self._data, self._tokens)


def _successor(data: bytes) -> bytes | None:
    """Returns the first bytes that come after all that begin with `data`; None if there are no."""
    kept = data.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


_KNOWN: WeakKeyDictionary[Tokenizer, TokenBytes] = WeakKeyDictionary()
_LOCK = threading.Lock()
