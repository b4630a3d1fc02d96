"""Second stage: which documents stay, and on which side of the split.

Exact duplicates have the same text but for white space. Near duplicates share most of their token
5-grams, found by MinHash and locality-sensitive hashing (datasketch) and checked against the whole
signature. The first of a group stays. Held-out documents come first, so that whatever is nearly
one of them is not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codegeex.data.minhash import NUM_PERMUTATIONS, SEED, Signature, similarity
from codegeex.data.read import Found
from codegeex.data.reasons import Reason, Tally
from glm_core.data.documents import HELDOUT, SPLITS, TRAIN
from glm_core.extras import require
from glm_core.progress import Progress

_SCHEME = "affine32"
_RECALL = 0.95


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document with its split and signature."""

    found: Found
    split: str
    signature: Signature


def without_duplicates(
    candidates: Sequence[Candidate], threshold: float, dropped: Tally
) -> dict[str, list[int]]:
    """Indices of the documents that stay, per split, in order.

    Args:
        threshold: Jaccard similarity from which two documents count as one; 0 compares none.
        dropped: counts the others.
    """
    kept: dict[str, list[int]] = {split: [] for split in SPLITS}
    exact: set[str] = set()
    index = _NearIndex(threshold) if threshold else None
    progress = Progress("comparing", len(candidates), "documents")
    for split in (HELDOUT, TRAIN):
        for number, candidate in _of_split(candidates, split):
            reason = _judge(number, candidate, candidates, exact, index)
            if reason:
                dropped.add(reason, candidate.found.size)
            else:
                kept[split].append(number)
            progress.add(1)
    return kept


def _of_split(candidates: Sequence[Candidate], split: str) -> Iterator[tuple[int, Candidate]]:
    return ((i, item) for i, item in enumerate(candidates) if item.split == split)


def _judge(
    number: int,
    candidate: Candidate,
    candidates: Sequence[Candidate],
    exact: set[str],
    index: _NearIndex | None,
) -> Reason | None:
    if candidate.found.sha in exact:
        return Reason.exact_duplicate
    exact.add(candidate.found.sha)
    if index is None or candidate.found.prompt_size:
        return None
    near = index.find(candidate.signature, number)
    if near is None:
        return None
    crosses = candidates[near].split == HELDOUT and candidate.split == TRAIN
    return Reason.near_heldout if crosses else Reason.near_duplicate


def bands(threshold: float) -> tuple[int, int]:
    """Bands and rows of the index: as many rows as find 95 % of the pairs at the threshold.

    What is found too much is checked afterwards, so only what is missed counts.
    """
    for rows in range(NUM_PERMUTATIONS, 0, -1):
        number = NUM_PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** number >= _RECALL:
            return number, rows
    return NUM_PERMUTATIONS, 1


class _NearIndex:
    """Signatures seen so far."""

    def __init__(self, threshold: float) -> None:
        self._datasketch: Any = require("datasketch", extra="codegeex")
        self._threshold = threshold
        self._lsh = self._datasketch.MinHashLSH(
            threshold=threshold, num_perm=NUM_PERMUTATIONS, params=bands(threshold)
        )
        self._signatures: dict[int, Signature] = {}

    def find(self, signature: Signature, number: int) -> int | None:
        """The first similar document there was; else None, and this one is remembered."""
        if np.all(signature == 0xFFFFFFFF):  # no word at all
            return None
        minhash = self._datasketch.LeanMinHash(seed=SEED, hashvalues=signature, scheme=_SCHEME)
        near = [
            other
            for other in self._lsh.query(minhash)
            if similarity(signature, self._signatures[other]) >= self._threshold
        ]
        if near:
            return int(min(near))
        self._lsh.insert(number, minhash, check_duplication=False)
        self._signatures[number] = signature
        return None
