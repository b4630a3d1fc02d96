"""Why a file is left out, and how many were."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Reason(StrEnum):
    """Why a file is left out; the names are those of the report."""

    unreadable = "unreadable"
    ignored = "ignored"
    unknown_language = "unknown_language"
    other_language = "other_language"
    test = "test"
    vendored = "vendored"
    too_large = "too_large"
    too_small = "too_small"
    binary = "binary"
    not_utf8 = "not_utf8"
    minified = "minified"
    not_alphabetic = "not_alphabetic"
    generated = "generated"
    licence = "licence"
    data = "data"
    exact_duplicate = "exact_duplicate"
    near_duplicate = "near_duplicate"
    near_heldout = "near_heldout"
    contaminated = "contaminated"


EXPLAINED: dict[Reason, str] = {
    Reason.unreadable: "could not be read",
    Reason.ignored: "ignored by git",
    Reason.unknown_language: "name tells no language",
    Reason.other_language: "language not asked for",
    Reason.test: "test",
    Reason.vendored: "copy of another project",
    Reason.too_large: "above max_bytes",
    Reason.too_small: "below min_bytes",
    Reason.binary: "binary",
    Reason.not_utf8: "not UTF-8",
    Reason.minified: "minified: lines too long",
    Reason.not_alphabetic: "too few letters",
    Reason.generated: "generated",
    Reason.licence: "copyleft or proprietary header",
    Reason.data: "data in the form of code",
    Reason.exact_duplicate: "same text as another file",
    Reason.near_duplicate: "nearly the same as another file",
    Reason.near_heldout: "nearly the same as a held-out file",
    Reason.contaminated: "holds a benchmark's problem",
}


class Tally:
    """Files and bytes per reason."""

    def __init__(self, counts: Mapping[str, list[int]] | None = None) -> None:
        self._counts = {Reason(name): list(pair) for name, pair in (counts or {}).items()}

    def add(self, reason: Reason, size: int, files: int = 1) -> None:
        """Counts `files` files of together `size` bytes."""
        pair = self._counts.setdefault(reason, [0, 0])
        pair[0] += files
        pair[1] += size

    def merge(self, other: Tally) -> None:
        """Counts what another tally counted."""
        for reason, (files, size) in other._counts.items():
            self.add(reason, size, files)

    def as_dict(self) -> dict[str, list[int]]:
        """Reason to [files, bytes], in the order of the filters."""
        return {str(reason): self._counts[reason] for reason in Reason if reason in self._counts}
