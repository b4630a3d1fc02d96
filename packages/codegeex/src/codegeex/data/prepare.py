"""From sources of code to a prepared folder, in stages that are never done twice.

The folder holds what `glm_core.data.prepare.open_prepared` opens (`tokenizer/`, the shards `train`
and `heldout`, `manifest.json`), and for each shard what `tokens.py` says. While it is made it lies
in OUT.partial: reading (`read.py`), choosing (`duplicates.py`), the tokenizer, tokens and shards
(`tokens.py`). A kill at any moment costs at most the parts that were running; the same command
goes on, and writes the same bytes as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from codegeex.data.config import TRAIN_TOKENIZER, PrepareConfig, SplitBy
from codegeex.data.contamination import load_benchmarks
from codegeex.data.duplicates import Candidate, without_duplicates
from codegeex.data.order import packing_order
from codegeex.data.parts import Part, run_parts, write_whole
from codegeex.data.read import Found, LeftOut, ReadPart, read_found, read_signatures, stretches
from codegeex.data.reasons import EXPLAINED, Reason, Tally
from codegeex.data.sources import Listing, list_sources
from codegeex.data.tokens import Placed, TokenPart, read_text, token_parts, write_shard
from codegeex.data.unpack import unpacked
from codegeex.fim import SENTINELS
from glm_core.checkpoint.files import sha256_of
from glm_core.checkpoint.pretrained import EMBEDDED
from glm_core.data.documents import HELDOUT, SPLITS, TRAIN, share_of, split_of
from glm_core.data.prepare import MANIFEST, PreparedData, open_prepared, read_manifest
from glm_core.data.shards import FORMAT, VERSION
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer
from glm_core.tokenizer.loading import load_tokenizer
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.train.run_lock import run_lock

logger = logging.getLogger(__name__)

RULES_VERSION = 1
"""Grows whenever the same files would give other documents."""
MANY_REPOSITORIES = 200
_PLAN = "plan.json"
_CHOSEN = "chosen.json"
_NO_RULE = ("out", "workers", "sources")


class Chosen(NamedTuple):
    """Documents that stay, per split, in the order of the shards."""

    documents: dict[str, list[Placed]]
    left_out: LeftOut
    split_by: str


def prepare_code(config: PrepareConfig) -> PreparedData:
    """Makes the folder `config.out`, or goes on where an earlier call was stopped.

    Raises:
        ValueError: for a source that is missing or malformed, when no document is left, or for a
            folder that holds something else.
        OSError: if the folder cannot be written, or a process was ended from outside.
    """
    out = Path(config.out).expanduser()
    partial = out.with_name(f"{out.name}.partial")
    if config.decontaminate:
        load_benchmarks(tuple(config.decontaminate))
    tokenizer = None if config.tokenizer == TRAIN_TOKENIZER else _named_tokenizer(config.tokenizer)
    listing = list_sources(config)
    if not listing.files:
        raise _nothing_left(config, listing.skipped)
    key = _key(config, listing, tokenizer)
    if (out / MANIFEST).is_file():
        return _there_already(out, partial, key)
    _check_free(out, partial)
    with _locked(out, partial):
        _begin(partial, key)
        try:
            _make(config, listing, tokenizer, partial, key)
        except ValueError:  # the sources must change, and nothing of this fits them then
            shutil.rmtree(partial)
            raise
        if out.is_dir():
            out.rmdir()
        (partial / "result").rename(out)
        shutil.rmtree(partial)
    return open_prepared(out)


def _there_already(out: Path, partial: Path, key: str) -> PreparedData:
    if read_manifest(out).get("key") != key:
        raise ValueError(
            f"--out {out} holds data from other settings or sources: name another folder, or "
            "delete it"
        )
    logger.info("%s is there already", out)
    if _key_of(partial) == key:  # killed between the last two steps
        shutil.rmtree(partial)
    return open_prepared(out)


def _check_free(out: Path, partial: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} exists and was not made by codegeex prepare: name another")
    if partial.exists() and _key_of(partial) is None:
        if not partial.is_dir() or any(path.name != ".lock" for path in partial.iterdir()):
            raise ValueError(f"{partial} is in the way: it was not made by codegeex prepare")


@contextmanager
def _locked(out: Path, partial: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(run_lock(partial))
        except ValueError as error:
            if isinstance(error.__cause__, BlockingIOError):
                raise ValueError(f"--out {out} is being made by another process") from error
            raise ValueError(
                f"--out {out} cannot be written ({error.__cause__}): choose another folder"
            ) from error
        yield


def _begin(partial: Path, key: str) -> None:
    """Empties the working folder if it belongs to another call."""
    before = _key_of(partial)
    if before == key:
        logger.info("going on in %s", partial)
    elif before is not None:
        logger.info("settings or sources have changed: starting anew in %s", partial)
        (partial / _PLAN).unlink()
        for path in partial.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()
    write_whole(partial / _PLAN, {"key": key})
    for name in ("read", "tokens", "result"):
        (partial / name).mkdir(exist_ok=True)


def _key_of(partial: Path) -> str | None:
    """What a working folder was begun for."""
    plan = partial / _PLAN
    return str(json.loads(plan.read_bytes())["key"]) if plan.is_file() else None


def _make(
    config: PrepareConfig, listing: Listing, tokenizer: Tokenizer | None, partial: Path, key: str
) -> None:
    read = _read(config, listing, partial)
    chosen = _choose(config, listing, read, partial / _CHOSEN)
    tokenizer = _tokenizer(config, tokenizer, chosen.documents[TRAIN], partial)
    parts = _tokenise(config, chosen, partial)
    begin = time.monotonic()
    result = partial / "result"
    tokenizer.save(result / "tokenizer")
    splits = {
        split: write_shard(result, split, tokenizer, [(p.done, p.work) for p in parts[split]])
        for split in SPLITS
    }
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "source": listing.fingerprint(),
        "tokenizer": tokenizer.fingerprint(),
        "vocab_size": tokenizer.vocab_size,
        "splits": splits,
        "key": key,
        "code": {
            "settings": _rules(config),
            "split_by": chosen.split_by,
            "dropped": chosen.left_out.tally.as_dict(),
            "contaminated": chosen.left_out.contaminated,
            "repositories": _repositories(chosen, listing),
        },
    }
    write_whole(result / MANIFEST, manifest)
    _tell_speed("wrote", sum(int(row["bytes"]) for row in splits.values()) / 1e6, begin)


def _read(config: PrepareConfig, listing: Listing, partial: Path) -> list[Path]:
    files = unpacked(listing.files, partial / "unpacked")
    parts = [
        Part(
            work, partial / "read" / f"{number:05d}.json", sum(s.stop - s.start for s in work) / 1e6
        )
        for number, work in enumerate(stretches(files))
    ]
    begin = time.monotonic()
    megabytes = run_parts("reading", ReadPart(config), parts, config.num_workers)
    _tell_speed("read and filtered", megabytes, begin)
    return [part.done for part in parts]


def _choose(config: PrepareConfig, listing: Listing, read: Sequence[Path], path: Path) -> Chosen:
    """Split, duplicates, order; written down, so that it is done once."""
    begin = time.monotonic()
    placed: list[Placed] = []
    left_out = LeftOut(Tally(listing.skipped.as_dict()))
    for done in read:
        found, of_part = read_found(done)
        placed.extend(Placed(done.with_suffix(".text"), item) for item in found)
        left_out.merge(of_part)
    if not placed:
        raise _nothing_left(config, left_out.tally)
    split_by = _split_by(config, placed)
    if not path.is_file():
        splits = _splits(config, [item.found for item in placed], split_by)
        duplicates = Tally()
        kept = without_duplicates(
            [
                Candidate(item.found, split, signature)
                for item, split, signature in zip(placed, splits, _signatures(read), strict=True)
            ],
            config.near_duplicates,
            duplicates,
        )
        write_whole(path, {"kept": kept, "dropped": duplicates.as_dict()})
        _tell_speed("compared", sum(item.found.size for item in placed) / 1e6, begin)
    content = json.loads(path.read_bytes())
    left_out.tally.merge(Tally(content["dropped"]))
    documents = {}
    for split in SPLITS:
        members = [placed[index] for index in content["kept"][split]]
        documents[split] = [members[i] for i in packing_order([item.found for item in members])]
    return Chosen(documents, left_out, str(split_by))


def _signatures(read: Sequence[Path]) -> Iterator[Any]:
    for done in read:
        yield from read_signatures(done)


def _split_by(config: PrepareConfig, placed: Sequence[Placed]) -> SplitBy:
    if config.split_by is not SplitBy.auto:
        return config.split_by
    repositories = {item.found.repository for item in placed}
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


def _tokenizer(
    config: PrepareConfig, given: Tokenizer | None, train: Sequence[Placed], partial: Path
) -> Tokenizer:
    folder = partial / "tokenizer"
    if folder.is_dir():
        return load_tokenizer(folder)
    begin = time.monotonic()
    temporary = partial / "tokenizer.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    tokenizer = given or ByteBPETokenizer.train(
        _sample(train, config.tokenizer_mb * 1e6), config.vocab_size, SENTINELS
    )
    tokenizer.save(temporary)
    temporary.rename(folder)
    seconds = time.monotonic() - begin
    logger.info("tokenizer of %d ids: %.1f s", tokenizer.vocab_size, seconds)
    return load_tokenizer(folder)


def _sample(train: Sequence[Placed], most_bytes: float) -> Iterator[str]:
    """Texts of about `most_bytes`, picked by a hash of their names."""
    total = sum(item.found.size for item in train)
    share = most_bytes / total if total else 1.0
    for item in train:
        if share >= 1 or share_of(f"tokenizer {item.found.name}") < share:
            yield read_text(item)


def _tokenise(
    config: PrepareConfig, chosen: Chosen, partial: Path
) -> dict[str, list[Part[list[Placed]]]]:
    parts: dict[str, list[Part[list[Placed]]]] = {}
    for split in SPLITS:
        parts[split] = [
            Part(
                work,
                partial / "tokens" / f"{split}-{number:05d}.lengths",
                sum(item.found.size for item in work) / 1e6,
            )
            for number, work in enumerate(token_parts(chosen.documents[split]))
        ]
    begin = time.monotonic()
    everything = [part for split in SPLITS for part in parts[split]]
    function = TokenPart(partial / "tokenizer", config.path_line)
    _tell_speed(
        "tokenised", run_parts("tokenising", function, everything, config.num_workers), begin
    )
    return parts


def _repositories(chosen: Chosen, listing: Listing) -> list[dict[str, Any]]:
    """Repositories with version, licences, files and bytes in the training split."""
    table: dict[str, dict[str, Any]] = {}
    for item in chosen.documents[TRAIN]:
        found = item.found
        row = table.setdefault(
            found.repository,
            {
                "name": found.repository,
                "version": listing.versions.get(found.repository, ""),
                "licence": found.licence,
                "files": 0,
                "bytes": 0,
            },
        )
        row["files"] += 1
        row["bytes"] += found.size
    return sorted(table.values(), key=lambda row: row["name"].lower())


def _rules(config: PrepareConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in _NO_RULE}


def _key(config: PrepareConfig, listing: Listing, tokenizer: Tokenizer | None) -> str:
    """Hash of everything that decides the result."""
    name = tokenizer.fingerprint() if tokenizer else TRAIN_TOKENIZER
    benchmarks = [sha256_of(Path(path).expanduser()) for path in config.decontaminate]
    parts = [
        (FORMAT, VERSION, RULES_VERSION),
        _rules(config),
        listing.fingerprint(),
        name,
        benchmarks,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _named_tokenizer(name: str) -> Tokenizer:
    return load_tokenizer(EMBEDDED.get(name, Path(name).expanduser()))


def _tell_speed(what: str, megabytes: float, begin: float) -> None:
    seconds = max(time.monotonic() - begin, 1e-9)
    if megabytes:
        logger.info(
            "%s %.1f MB in %.1f s (%.1f MB/s)", what, megabytes, seconds, megabytes / seconds
        )


def _nothing_left(config: PrepareConfig, skipped: Tally) -> ValueError:
    counts = skipped.as_dict()
    told = ", ".join(f"{files} {EXPLAINED[Reason(name)]}" for name, (files, _) in counts.items())
    return ValueError(
        f"no document is left of {', '.join(config.sources)}: {told or 'there is no source file'}"
    )
