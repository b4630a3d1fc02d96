"""MinHash signatures of token 5-grams, computed by numpy for whole files at once.

A word is hashed once and remembered; 5-grams and permutations are array arithmetic. The
permutations are a * x + b in 32 bits with an odd a: each is a bijection, so none makes two
different 5-grams equal. The signatures go into datasketch's index (`dedup.py`).
"""

from __future__ import annotations

import re
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

NUM_PERMUTATIONS = 128
NGRAM = 5
SEED = 2024

Signature = NDArray[np.uint32]

_WORD = re.compile(r"\w+")
_BLOCK = 2_048
_REMEMBERED = 1_000_000
_BASE = np.uint64(0x9E3779B97F4A7C15)


class _WordHashes(dict[str, int]):
    def __missing__(self, word: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        value = int.from_bytes(blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())
        self[word] = value
        return value


_words = _WordHashes()
_rng = np.random.default_rng(SEED)
_A = (
    _rng.integers(0, 1 << 31, (NUM_PERMUTATIONS, 1), dtype=np.uint32) << np.uint32(1)
) | np.uint32(1)
_B = _rng.integers(0, 1 << 32, (NUM_PERMUTATIONS, 1), dtype=np.uint32)


def signature(text: str) -> Signature:
    """Signature of a text, uint32 [128]; equal where one of two sets has the other's minimum."""
    grams = shingles(text)
    lowest = np.full(NUM_PERMUTATIONS, 0xFFFFFFFF, dtype=np.uint32)
    for start in range(0, len(grams), _BLOCK):
        permuted = _A * grams[start : start + _BLOCK]
        permuted += _B
        np.minimum(lowest, permuted.min(axis=1), out=lowest)
    return lowest


def shingles(text: str, num_words: int = NGRAM) -> NDArray[np.uint32]:
    """Hashes of the n-grams of words, one per place; a shorter text is one gram."""
    words = _WORD.findall(text)
    hashes = np.fromiter(map(_words.__getitem__, words), dtype=np.uint64, count=len(words))
    length = min(num_words, len(words))
    if not length:
        return np.zeros(0, dtype=np.uint32)
    count = len(words) - length + 1
    grams = np.zeros(count, dtype=np.uint64)
    for place in range(length):
        grams *= _BASE
        grams += hashes[place : place + count]
        grams ^= grams >> np.uint64(29)
    return _mixed((grams >> np.uint64(32)).astype(np.uint32))


def similarity(first: Signature, second: Signature) -> float:
    """Estimated Jaccard similarity."""
    return float(np.count_nonzero(first == second)) / len(first)


def _mixed(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's last step, so that near values have far permutations."""
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))
