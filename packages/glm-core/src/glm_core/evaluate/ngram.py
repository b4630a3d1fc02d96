"""A token n-gram model, interpolated modified Kneser-Ney: what counting alone achieves.

Source: Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling",
section 3 (three discounts per order, lower orders count distinct left neighbours).

Letters: T tokens of a text, U distinct n-grams of one order, H their histories (the distinct
n-grams of the next lower order). An n-gram is known by its row in the sorted table of its order,
and its key is (row of its history) * vocabulary + its last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glm_core.data.batch import Ints
from glm_core.progress import Progress

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
_UNKNOWN = -1


@dataclass(frozen=True)
class _Order:
    """What one order says. All tables are ready to be looked up."""

    keys_U: Ints
    """Sorted."""
    own_U: np.ndarray
    """(count - discount) / total of the history, float32."""
    backoff_H: np.ndarray
    """Weight of the next lower order after each history, float32."""


class KneserNey:
    """An n-gram model of token ids.

    Args:
        tokens_T: the training text as one stream, each document closed by `eos_id`.
        vocab_size: number of ids.
        order: longest n-gram, at least 2.
        eos_id: closes documents.

    Raises:
        ValueError: the text is empty or the order too small.
    """

    def __init__(self, tokens_T: np.ndarray, vocab_size: int, order: int, eos_id: int) -> None:
        if order < 2:
            raise ValueError(f"the order of the n-gram model is {order}: it must be at least 2")
        if len(tokens_T) == 0:
            raise ValueError(
                "an n-gram model needs training text, but the training split is empty: evaluate "
                "without baselines, or give a corpus with a training split"
            )
        self.vocab_size, self.order, self.eos_id = vocab_size, order, eos_id
        tokens_T = self._padded(tokens_T)
        progress = Progress(f"counting {order}-grams", order, "orders")
        self._orders: list[_Order] = []
        table = _distinct(tokens_T)
        for n in range(2, order + 1):
            rows_T = table.rows_T
            longer = _distinct(rows_T[:-1] * np.int64(vocab_size) + tokens_T[n - 1 :])
            # In how many n-grams an (n-1)-gram is the end: its number of left neighbours.
            ends_U = rows_T[1:][longer.columns_U]
            self._append(table.keys_U, np.bincount(ends_U, minlength=len(table.keys_U)))
            table = longer
            progress.add(1)
        self._append(table.keys_U, table.counts_U)

    def probabilities(self, tokens_T: Ints) -> Floats:
        """Returns the probability of each token of a stream given those before it, (T,).

        Args:
            tokens_T: as in training, documents closed by eos; the stream begins a document.
        """
        text = self._padded(tokens_T)
        probability_T = np.full(len(text), 1.0 / self.vocab_size)
        history_T = np.zeros(len(text), dtype=np.int64)  # of the first order: the empty one
        for order in self._orders:
            known_T = history_T >= 0
            rows_T = _find(order.keys_U, history_T * self.vocab_size + text)
            rows_T[~known_T] = _UNKNOWN
            own_T = np.where(rows_T >= 0, order.own_U[rows_T].astype(np.float64), 0.0)
            mixed_T = own_T + order.backoff_H[history_T] * probability_T
            probability_T = np.where(known_T, mixed_T, probability_T)
            history_T = np.concatenate(([_UNKNOWN], rows_T[:-1]))
        return probability_T[self.order - 1 :]

    def nats(self, documents: Sequence[Ints]) -> float:
        """Returns the summed cross-entropy of the tokens of documents, their ends not scored."""
        closed = [np.append(document, self.eos_id) for document in documents]
        stream_T = np.concatenate(closed)
        scored_T = np.ones(len(stream_T), dtype=bool)
        scored_T[np.cumsum([len(document) for document in closed]) - 1] = False
        return float(-np.log(self.probabilities(stream_T)[scored_T]).sum())

    def next_probabilities(self, tokens_T: Sequence[int]) -> Floats:
        """Returns the probability of every id after a text that begins a document, [vocab_size]."""
        text = self._padded(np.asarray(tokens_T[-self.order :], dtype=np.int64))
        probability_V = np.full(self.vocab_size, 1.0 / self.vocab_size)
        history_T = np.zeros(len(text), dtype=np.int64)  # as in `probabilities`
        history = 0
        for order in self._orders:
            begin = history * self.vocab_size
            first, last = np.searchsorted(order.keys_U, (begin, begin + self.vocab_size))
            probability_V = probability_V * order.backoff_H[history]
            probability_V[order.keys_U[first:last] - begin] += order.own_U[first:last]
            rows_T = _find(order.keys_U, history_T * self.vocab_size + text)
            rows_T[history_T < 0] = _UNKNOWN
            history = int(rows_T[-1])
            if history < 0:
                break
            history_T = np.concatenate(([_UNKNOWN], rows_T[:-1]))
        return probability_V

    def _padded(self, tokens_T: np.ndarray) -> Ints:
        """Puts eos before a stream, so that its first token has a history too."""
        pad = np.full(self.order - 1, self.eos_id, dtype=np.int64)
        return np.concatenate((pad, tokens_T.astype(np.int64)))

    def _append(self, keys_U: Ints, counts_U: Ints) -> None:
        num_histories = len(self._orders[-1].keys_U) if self._orders else 1
        history_U = keys_U // self.vocab_size
        totals_H = np.bincount(history_U, weights=counts_U, minlength=num_histories)
        taken_U = np.minimum(_discounts(counts_U)[np.minimum(counts_U, 3)], counts_U)
        own_U = (counts_U - taken_U) / np.maximum(totals_H, 1)[history_U]
        taken_H = np.bincount(history_U, weights=taken_U, minlength=num_histories)
        backoff_H = np.where(totals_H > 0, taken_H / np.maximum(totals_H, 1), 1.0)
        self._orders.append(_Order(keys_U, own_U.astype(np.float32), backoff_H.astype(np.float32)))


@dataclass(frozen=True)
class _Distinct:
    """The distinct values of a row of keys; like np.unique, in half the memory and time."""

    keys_U: Ints
    """Sorted."""
    counts_U: Ints
    columns_U: Ints
    """A column where each stands."""
    rows_T: np.ndarray
    """Row of each column's key in `keys_U`, int32."""


def _distinct(keys_T: Ints) -> _Distinct:
    order_T = np.argsort(keys_T)
    sorted_T = keys_T[order_T]
    is_new_T = np.ones(len(keys_T), dtype=bool)
    np.not_equal(sorted_T[1:], sorted_T[:-1], out=is_new_T[1:])
    starts_U = np.flatnonzero(is_new_T)
    rows_T = np.empty(len(keys_T), dtype=np.int32)
    rows_T[order_T] = np.cumsum(is_new_T, dtype=np.int32) - 1
    counts_U = np.diff(starts_U, append=len(keys_T))
    return _Distinct(sorted_T[starts_U], counts_U, order_T[starts_U], rows_T)


def _discounts(counts_U: Ints) -> Floats:
    """Returns what is taken from n-grams that occur 0, 1, 2 and 3 or more times (eq. 26)."""
    n1, n2, n3, n4 = (int((counts_U == count).sum()) for count in (1, 2, 3, 4))
    share = n1 / (n1 + 2 * n2) if n1 else 0.5
    more = zip((1, 2, 3), (n1, n2, n3), (n2, n3, n4), strict=True)
    # A corpus too small to have such n-grams gives no estimate: take half of a count.
    taken = [k - (k + 1) * share * above / own if own and above else 0.5 for k, own, above in more]
    return np.clip([0.0, *taken], [0.0, 0.1, 0.1, 0.1], [0.0, 1.0, 2.0, 3.0])


def _find(sorted_keys_U: Ints, keys_T: Ints) -> Ints:
    """Returns the row of each key, or _UNKNOWN."""
    rows_T = np.searchsorted(sorted_keys_U, keys_T)
    inside_T = np.minimum(rows_T, len(sorted_keys_U) - 1)
    return np.where(sorted_keys_U[inside_T] == keys_T, inside_T, _UNKNOWN)
