"""From sources of code to a prepared folder, in stages that are never done twice.

The folder holds what `glm_core.data.prepare.open_prepared` opens (`tokenizer/`, the shards `train`
and `heldout`, `manifest.json`), and for each shard what `tokens.py` says. While it is made it lies
in OUT.partial: reading (`read.py`), choosing (`choose.py`), the tokenizer, tokens and shards
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codegeex.data.choose import Chosen, choose
from codegeex.data.config import TRAIN_TOKENIZER, PrepareConfig
from codegeex.data.contamination import benchmark_files, load_benchmarks
from codegeex.data.parts import Part, run_parts, write_whole
from codegeex.data.read import ReadPart, stretches
from codegeex.data.reasons import EXPLAINED, Reason, Tally
from codegeex.data.sources import Listing, list_sources
from codegeex.data.tokens import Placed, TokenPart, read_text, token_parts, write_shard
from codegeex.data.unpack import unpacked
from codegeex.data.working_folder import RESULT, remove_leftover, working_folder
from codegeex.fim import SENTINELS
from glm_core.checkpoint.files import sha256_of
from glm_core.checkpoint.pretrained import EMBEDDED
from glm_core.data.documents import SPLITS, TRAIN, share_of
from glm_core.data.prepare import MANIFEST, PreparedData, open_prepared, read_manifest
from glm_core.data.shards import FORMAT, VERSION
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer
from glm_core.tokenizer.loading import load_tokenizer
from glm_core.tokenizer.protocol import Tokenizer

logger = logging.getLogger(__name__)

RULES_VERSION = 1
"""Grows whenever the same files would give other documents."""
_NO_RULE = ("out", "workers", "sources")


def prepare_code(config: PrepareConfig) -> PreparedData:
    """Makes the folder `config.out`, or goes on where an earlier call was stopped.

    Raises:
        ValueError: for a source that is missing or malformed, when no document is left, or for a
            folder that holds something else.
        OSError: if the folder cannot be written, or a process was ended from outside.
    """
    out = Path(config.out).expanduser()
    if config.decontaminate:
        load_benchmarks(tuple(config.decontaminate))  # a wrong file should be told at once
    tokenizer = None if config.tokenizer == TRAIN_TOKENIZER else _named_tokenizer(config.tokenizer)
    listing = list_sources(config)
    if not listing.files:
        raise _nothing_left(config, listing.skipped)
    key = _key(config, listing, tokenizer)
    if (out / MANIFEST).is_file():
        return _there_already(out, key)
    megabytes = sum(file.size for file in listing.files) / 1e6
    logger.info("%s files, %.1f MB to read", f"{len(listing.files):,}", megabytes)
    with working_folder(out, key) as partial:
        _make(config, listing, tokenizer, partial, key)
    return open_prepared(out)


def _there_already(out: Path, key: str) -> PreparedData:
    if read_manifest(out).get("key") != key:
        raise ValueError(
            f"--out {out} holds data from other settings or sources: name another folder, or "
            "delete it"
        )
    logger.info("%s is there already", out)
    remove_leftover(out, key)
    return open_prepared(out)


def _make(
    config: PrepareConfig, listing: Listing, tokenizer: Tokenizer | None, partial: Path, key: str
) -> None:
    read = _read(config, listing, partial)
    begin = time.monotonic()
    chosen = choose(config, listing.skipped, read, partial / "chosen.json")
    if not chosen.documents:
        raise _nothing_left(config, chosen.left_out.tally)
    everything = [item for split in SPLITS for item in chosen.documents[split]]
    _tell_speed("compared", sum(item.found.size for item in everything) / 1e6, begin)
    tokenizer = _tokenizer(config, tokenizer, chosen.documents[TRAIN], partial)
    parts = _tokenise(config, chosen, partial)
    begin = time.monotonic()
    result = partial / RESULT
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
            "split_by": str(chosen.split_by),
            "dropped": chosen.left_out.tally.as_dict(),
            "contaminated": chosen.left_out.contaminated,
            "repositories": _repositories(chosen.documents[TRAIN], listing),
            "packages_left_out": listing.packages_left_out,
        },
    }
    write_whole(result / MANIFEST, manifest)
    _tell_speed("wrote", sum(item.found.size for item in everything) / 1e6, begin)


def _read(config: PrepareConfig, listing: Listing, partial: Path) -> list[Path]:
    folder = partial / "read"
    folder.mkdir(exist_ok=True)
    parts = [
        Part(work, folder / f"{number:05d}.json", sum(s.stop - s.start for s in work) / 1e6)
        for number, work in enumerate(stretches(unpacked(listing.files, partial / "unpacked")))
    ]
    begin = time.monotonic()
    megabytes = run_parts("reading", ReadPart(config), parts, config.num_workers)
    _tell_speed("read and filtered", megabytes, begin)
    return [part.done for part in parts]


def _tokenizer(
    config: PrepareConfig, given: Tokenizer | None, train: Sequence[Placed], partial: Path
) -> Tokenizer:
    folder = partial / "tokenizer"
    if not folder.is_dir():
        begin = time.monotonic()
        temporary = partial / "tokenizer.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        tokenizer = given or ByteBPETokenizer.train(
            _sample(train, config.tokenizer_mb * 1e6), config.vocab_size, SENTINELS
        )
        tokenizer.save(temporary)
        temporary.rename(folder)
        if not given and tokenizer.vocab_size < config.vocab_size:
            logger.warning(
                "the code has merges for %d ids only, --vocab-size asked for %d",
                tokenizer.vocab_size,
                config.vocab_size,
            )
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
    folder = partial / "tokens"
    folder.mkdir(exist_ok=True)
    parts: dict[str, list[Part[list[Placed]]]] = {}
    for split in SPLITS:
        parts[split] = [
            Part(
                work,
                folder / f"{split}-{number:05d}.lengths",
                sum(item.found.size for item in work) / 1e6,
            )
            for number, work in enumerate(token_parts(chosen.documents[split]))
        ]
    begin = time.monotonic()
    everything = [part for split in SPLITS for part in parts[split]]
    function = TokenPart(partial / "tokenizer", config.path_line)
    megabytes = run_parts("tokenising", function, everything, config.num_workers)
    _tell_speed("tokenised", megabytes, begin)
    return parts


def _repositories(train: Sequence[Placed], listing: Listing) -> list[dict[str, Any]]:
    """Repositories with version, licence, files and bytes in the training split."""
    table: dict[str, dict[str, Any]] = {}
    for found in (item.found for item in train):
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
    return sorted(table.values(), key=lambda row: str(row["name"]).lower())


def _rules(config: PrepareConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in _NO_RULE}


def _key(config: PrepareConfig, listing: Listing, tokenizer: Tokenizer | None) -> str:
    """Hash of everything that decides the result."""
    parts = [
        (FORMAT, VERSION, RULES_VERSION),
        _rules(config),
        listing.fingerprint(),
        tokenizer.fingerprint() if tokenizer else TRAIN_TOKENIZER,
        [sha256_of(path) for path in benchmark_files(config.decontaminate)],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _named_tokenizer(name: str) -> Tokenizer:
    return load_tokenizer(EMBEDDED.get(name, Path(name).expanduser()))


def _nothing_left(config: PrepareConfig, skipped: Tally) -> ValueError:
    counts = skipped.as_dict()
    told = ", ".join(f"{files} {EXPLAINED[Reason(name)]}" for name, (files, _) in counts.items())
    return ValueError(
        f"no document is left of {', '.join(config.sources)}: {told or 'there is no source file'}"
    )


def _tell_speed(what: str, megabytes: float, begin: float) -> None:
    seconds = max(time.monotonic() - begin, 1e-9)
    if megabytes:
        rate = megabytes / seconds
        logger.info("%s %.1f MB in %.1f s (%.1f MB/s)", what, megabytes, seconds, rate)
