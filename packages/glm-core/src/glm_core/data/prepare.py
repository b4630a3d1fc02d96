"""From a source to a tokenizer and two shards, once; after that from the cache.

The cache key is a hash of what decides the result: the source's fingerprint, the tokenizer and
the format's version. A prepared folder holds `tokenizer/`, the shards `train` and `heldout`, and
`manifest.json`; it appears whole or not at all, and can itself be given as `data.source`, which
pins a corpus against changes of the machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from glm_core.checkpoint.pretrained import EMBEDDED
from glm_core.data.config import DataConfig
from glm_core.data.documents import HELDOUT, SPLITS, TRAIN
from glm_core.data.shards import FORMAT, VERSION, Shard, ShardWriter
from glm_core.data.sources import Source, open_source
from glm_core.data.spool import Spool
from glm_core.progress import Progress
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer
from glm_core.tokenizer.loading import load_tokenizer
from glm_core.tokenizer.protocol import Tokenizer

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
TRAIN_TOKENIZER = "train"
_BATCH_CHARS = 4_000_000


class PreparedData(NamedTuple):
    """A corpus ready to be read; `train.folder` is where it lies."""

    tokenizer: Tokenizer
    train: Shard
    heldout: Shard


def prepare_data(config: DataConfig) -> PreparedData:
    """Tokenizer, training shard and held-out shard for a config, built if they are not there.

    With `tokenizer=train` a byte-level BPE is learnt from the training split alone.

    Raises:
        ValueError: for a missing, empty or unreadable source, an unknown tokenizer, a prepared
            folder with another tokenizer than the config's, or a cache folder that cannot be
            written.
        ShardError: if what lies in the cache is damaged.
    """
    if not config.source:
        raise ValueError(
            "data.source is empty: name your text, for example data.source=notes/ (a text, jsonl "
            "or parquet file, or a folder of such files)"
        )
    pinned = Path(config.source).expanduser()
    if (pinned / MANIFEST).is_file():
        return _open_pinned(config, pinned)
    workers = os.cpu_count() or 1
    source = open_source(config.source, config.text_field, config.heldout_fraction, workers)
    folder = cache_folder(config) / _key(config, source)
    if not (folder / MANIFEST).is_file():
        _build(config, source, folder)
    return open_prepared(folder)


def open_prepared(folder: Path | str) -> PreparedData:
    """Opens a folder that `prepare_data` wrote.

    Raises:
        ValueError: if something in it is missing or damaged.
    """
    folder = Path(folder)
    tokenizer = load_tokenizer(folder / "tokenizer")
    prepared = PreparedData(tokenizer, Shard(folder, TRAIN), Shard(folder, HELDOUT))
    for shard in prepared[1:]:
        if shard.meta.tokenizer != tokenizer.fingerprint():
            raise ValueError(
                f"shard {shard.name} in {folder} was made with another tokenizer than the one "
                "beside it: delete the folder and run the same command again"
            )
    return prepared


def _open_pinned(config: DataConfig, folder: Path) -> PreparedData:
    """A prepared folder that was named as the source; its tokenizer cannot be replaced."""
    prepared = open_prepared(folder)
    if config.tokenizer != TRAIN_TOKENIZER:
        wanted = _named_tokenizer(config).fingerprint()
        if wanted != prepared.tokenizer.fingerprint():
            raise ValueError(
                f"data.source={config.source!r} was prepared with another tokenizer than "
                f"data.tokenizer={config.tokenizer!r}: name the text itself as data.source"
            )
    return prepared


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """What a prepared folder was made from: versions, documents, bytes, tokens, hashes."""
    manifest: dict[str, Any] = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def cache_folder(config: DataConfig) -> Path:
    """`data.cache_dir`, or $GLM_CACHE, or ~/.cache/glm-lab; created if it is not there.

    Raises:
        ValueError: if it cannot be created or written.
    """
    chosen = config.cache_dir or os.environ.get("GLM_CACHE") or "~/.cache/glm-lab"
    folder = Path(chosen).expanduser() / "data"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(
            f"the cache folder {folder} cannot be written ({error.strerror}): set data.cache_dir "
            "to a folder you can write to"
        ) from error


def _key(config: DataConfig, source: Source) -> str:
    if config.tokenizer == TRAIN_TOKENIZER:
        tokenizer = f"{TRAIN_TOKENIZER}:{config.vocab_size}"
    else:
        tokenizer = _named_tokenizer(config).fingerprint()
    parts = [FORMAT, VERSION, source.fingerprint(), tokenizer]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _build(config: DataConfig, source: Source, folder: Path) -> None:
    """Writes everything into a temporary folder beside `folder`, then renames it."""
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        _write(config, source, temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except OSError as error:
        if not (folder / MANIFEST).is_file():  # else another process was first: use its work
            raise ValueError(
                f"cannot write the prepared corpus to {folder} ({error.strerror}): free some "
                "space, or set data.cache_dir to another disk"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(config: DataConfig, source: Source, folder: Path) -> None:
    logger.info("preparing %s", config.source)
    with Spool(folder / "documents.jsonl") as spool:
        spool.fill(source.documents(), config.source, config.heldout_fraction > 0)
        tokenizer = _tokenizer(config, spool)
        tokenizer.save(folder / "tokenizer")
        writers = {
            split: ShardWriter(folder, split, tokenizer.vocab_size, tokenizer.fingerprint())
            for split in SPLITS
        }
        _tokenise(spool, tokenizer, writers)
        metas = {split: writer.close() for split, writer in writers.items()}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "source": source.fingerprint(),
        "tokenizer": tokenizer.fingerprint(),
        "vocab_size": tokenizer.vocab_size,
        "splits": {
            split: spool.summary(split) | {"tokens": metas[split].num_tokens} for split in SPLITS
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for split in SPLITS:
        summary = spool.summary(split)
        logger.info(
            "%s: %s documents, %.1f MB, %s tokens",
            split,
            f"{summary['documents']:,}",
            summary["bytes"] / 1e6,
            f"{metas[split].num_tokens:,}",
        )


def _named_tokenizer(config: DataConfig) -> Tokenizer:
    """The tokenizer in a folder, or that of a model which comes with the package."""
    return load_tokenizer(EMBEDDED.get(config.tokenizer, Path(config.tokenizer).expanduser()))


def _tokenizer(config: DataConfig, spool: Spool) -> Tokenizer:
    if config.tokenizer != TRAIN_TOKENIZER:
        return _named_tokenizer(config)
    logger.info("training a tokenizer of %d ids", config.vocab_size)
    tokenizer = ByteBPETokenizer.train(spool.texts(TRAIN), config.vocab_size)
    if tokenizer.vocab_size < config.vocab_size:
        logger.warning(
            "the corpus has merges for %d ids only, data.vocab_size asked for %d",
            tokenizer.vocab_size,
            config.vocab_size,
        )
    return tokenizer


def _tokenise(spool: Spool, tokenizer: Tokenizer, writers: dict[str, ShardWriter]) -> None:
    total = sum(spool.summary(split)["bytes"] for split in SPLITS)
    progress = Progress("tokenising", total / 1e6, "MB")
    for documents in spool.batches(_BATCH_CHARS):
        encoded = tokenizer.encode_batch([document.text for document in documents])
        for document, tokens in zip(documents, encoded, strict=True):
            if tokens:
                writers[document.split].add([*tokens, tokenizer.eos_id])
        progress.add(sum(len(document.text.encode()) for document in documents) / 1e6)
