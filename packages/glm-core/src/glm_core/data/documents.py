"""Documents, the unit that sources give and splits are made of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

TRAIN = "train"
HELDOUT = "heldout"
SPLITS: tuple[str, ...] = (TRAIN, HELDOUT)


@dataclass(frozen=True, slots=True)
class Document:
    """One text with a name that stays the same when its contents change."""

    name: str
    text: str
    split: str


def share_of(name: str) -> float:
    """A number in [0, 1) from the sha256 of a name."""
    digest = hashlib.sha256(name.encode("utf-8", errors="replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(name: str, heldout_fraction: float) -> str:
    """Which split a document belongs to, decided by a hash of its name alone.

    The name, not the contents: another version of a file keeps its side, so training on a newer
    copy of a corpus never shows the model what an older copy held out.

    Args:
        name: Stable name, for example "site-packages/einops/einops.py".
        heldout_fraction: Share of names that are held out, in [0, 1].
    """
    return HELDOUT if share_of(name) < heldout_fraction else TRAIN
