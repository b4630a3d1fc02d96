"""How alike two texts are."""

from __future__ import annotations


def edit_distance(one: str, other: str) -> int:
    """Returns the least number of characters to insert, delete or replace.

    Whole columns of the usual table at a time, as bits of a number.
    Source: H. Hyyrö, A Bit-Vector Algorithm for Computing Levenshtein and Damerau Edit Distances,
    2003, figure 3.
    """
    if not one or not other:
        return len(one) + len(other)
    places: dict[str, int] = {}
    for index, char in enumerate(one):
        places[char] = places.get(char, 0) | 1 << index
    mask, last = (1 << len(one)) - 1, 1 << len(one) - 1
    rises, falls, distance = mask, 0, len(one)  # where the column before rises and falls by one
    for char in other:
        equal = places.get(char, 0)
        zero = (((equal & rises) + rises) ^ rises) | equal | falls
        horizontal_rises = falls | ~(zero | rises) & mask
        horizontal_falls = rises & zero
        distance += bool(horizontal_rises & last) - bool(horizontal_falls & last)
        horizontal_rises = (horizontal_rises << 1 | 1) & mask
        horizontal_falls = horizontal_falls << 1 & mask
        rises = horizontal_falls | ~(zero | horizontal_rises) & mask
        falls = horizontal_rises & zero
    return distance


def edit_similarity(one: str, other: str) -> float:
    """Returns 1 for equal texts, and 0 for texts that have nothing in common."""
    longest = max(len(one), len(other))
    return 1.0 if longest == 0 else 1.0 - edit_distance(one, other) / longest
