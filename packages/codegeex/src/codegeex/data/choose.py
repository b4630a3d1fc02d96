"""Second stage: split, duplicates, order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codegeex.data.config import PrepareConfig, SplitBy
from codegeex.data.duplicates import Candidate, without_duplicates
from codegeex.data.minhash import Signature
from codegeex.data.order import packing_order
from codegeex.data.parts import write_whole
from codegeex.data.read import Found, LeftOut, read_found, read_signatures
from codegeex.data.reasons import Tally
from codegeex.data.tokens import Placed
from glm_core.data.documents import HELDOUT, SPLITS, TRAIN, share_of, split_of

MANY_REPOSITORIES = 200
"""From here on whole repositories are held out: fewer, and chance decides too much."""


@dataclass
class Chosen:
    """Documents that stay, per split, in the order of the shards."""

    left_out: LeftOut
    split_by: SplitBy = SplitBy.file
    documents: dict[str, list[Placed]] = field(default_factory=dict)


def choose(config: PrepareConfig, skipped: Tally, read: Sequence[Path], path: Path) -> Chosen:
    """Decides for every document that was read; written to `path`, so that it is done once.

    Args:
        skipped: what was left out before anything was read.
        read: the finished parts of the first stage.

    Returns:
        No documents at all, where none passed the filters.

    Raises:
        ValueError: if nothing is left for training.
    """
    placed: list[Placed] = []
    chosen = Chosen(LeftOut(Tally(skipped.as_dict())))
    for done in read:
        found, of_part = read_found(done)
        placed.extend(Placed(done.with_suffix(".text"), item) for item in found)
        chosen.left_out.merge(of_part)
    if not placed:
        return chosen
    everything = [item.found for item in placed]
    chosen.split_by = _split_by(config, everything)
    if not path.is_file():
        splits = _splits(config, everything, chosen.split_by)
        candidates = zip(everything, splits, _signatures(read), strict=True)
        duplicates = Tally()
        kept = without_duplicates(
            [Candidate(*item) for item in candidates], config.near_duplicates, duplicates
        )
        write_whole(path, {"kept": kept, "dropped": duplicates.as_dict()})
    content = json.loads(path.read_bytes())
    chosen.left_out.tally.merge(Tally(content["dropped"]))
    for split in SPLITS:
        members = [placed[index] for index in content["kept"][split]]
        order = packing_order([item.found for item in members])
        chosen.documents[split] = [members[index] for index in order]
    return chosen


def _signatures(read: Sequence[Path]) -> Iterator[Signature]:
    for done in read:
        yield from read_signatures(done)


def _split_by(config: PrepareConfig, found: Sequence[Found]) -> SplitBy:
    if config.split_by is not SplitBy.auto:
        return config.split_by
    repositories = {item.repository for item in found}
    return SplitBy.repository if len(repositories) >= MANY_REPOSITORIES else SplitBy.file


def _splits(config: PrepareConfig, found: Sequence[Found], split_by: SplitBy) -> list[str]:
    """The side of every document; where chance held out none, the smallest hash is."""
    names = [item.repository if split_by is SplitBy.repository else item.name for item in found]
    splits = [split_of(name, config.heldout_fraction) for name in names]
    if config.heldout_fraction and HELDOUT not in splits and len(set(names)) > 1:
        smallest = min(set(names), key=share_of)
        splits = [HELDOUT if name == smallest else TRAIN for name in names]
    if TRAIN not in splits:
        raise ValueError(
            f"{len(splits)} document(s) leave nothing for training beside the held-out split: add "
            "code, or lower --heldout-fraction"
        )
    return splits
