"""Puts together what `codegeex train` runs: data, task, Trainer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from codegeex.data.config import PrepareConfig
from codegeex.data.prepare import prepare_code
from codegeex.data.sources import list_sources
from codegeex.data.tokens import read_prefixes
from codegeex.fim.formats import find_format
from codegeex.training.config import CodeDataConfig, CodeTrainConfig
from codegeex.training.dataset import CodeDataset
from codegeex.training.pairs import PairDataset
from codegeex.training.task import CodeTask
from glm_core.checkpoint.hub import resolve_model
from glm_core.checkpoint.loading import load_model
from glm_core.data.config import DataConfig, Split
from glm_core.data.loader import Loader, SampleSource
from glm_core.data.prepare import MANIFEST, PreparedData, cache_folder, open_prepared
from glm_core.data.shards import Shard
from glm_core.model.config import TransformerConfig
from glm_core.model.transformer import Transformer
from glm_core.tokenizer.loading import load_tokenizer
from glm_core.train.callbacks import ConfigFile
from glm_core.train.compose import Primary, to_yaml
from glm_core.train.optim import OptimConfig
from glm_core.train.precision import resolve_device
from glm_core.train.trainer import Trainer, TrainResult
from glm_core.train.trainer_config import TrainerConfig
from glm_core.tune.lora_training import LoraConfig

TRAIN = Primary(
    schema=CodeTrainConfig,
    groups={
        "model": TransformerConfig,
        "data": CodeDataConfig,
        "optim": OptimConfig,
        "trainer": TrainerConfig,
        "lora": LoraConfig,
    },
    package="codegeex",
)


def train(config: CodeTrainConfig) -> TrainResult:
    """Trains to the end, or to the first stop request; resumes by itself.

    Raises:
        ValueError: the data is not there or does not fit the model.
    """
    device = resolve_device(config.trainer.device)  # before anything that takes minutes
    begun = _begun(config)
    if begun is not None:
        config = replace(config, model=begun.config)
        config.check_model()
    prepared = prepared_code(config)
    size = config.trainer.micro_batch_size
    held_out = replace(config.data, split=Split.heldout, workers=0)

    def loader(data: CodeDataConfig, start: int = 0) -> Loader:
        return code_loader(data, prepared, size, start, pin_memory=device.type == "cuda")

    trainer = Trainer(
        CodeTask(
            config.model,
            prepared.tokenizer,
            find_format(config.data.fim),
            begun=begun,
            lora=config.lora,
            seed=config.trainer.seed,
            attention=config.trainer.attention.value,
        ),
        lambda start: loader(config.data, start),
        config.trainer,
        config.run_dir,
        optim=config.optim,
        callbacks=[ConfigFile(to_yaml(config))],
        eval_loader=lambda: loader(held_out),
        more_eval_loaders={
            "left_to_right": lambda: loader(replace(held_out, fim_rate=0.0)),
            "holes": lambda: loader(replace(held_out, fim_rate=1.0)),
        },
        identity=config.identity(prepared.train.meta.tokens_sha256),
    )
    return trainer.fit()


def prepared_code(config: CodeTrainConfig) -> PreparedData:
    """Opens the data, which is prepared first where only its source is named.

    Raises:
        ValueError: there is none, or it was made with another tokenizer than the model's.
    """
    data = config.data
    if not data.source:
        raise ValueError(
            "data.source is empty: name your code, for example data.source=src/ (a folder, a "
            ".jsonl file, or what `codegeex prepare` wrote)"
        )
    folder = Path(data.source).expanduser()
    tokenizer = str(resolve_model(config.init_from, weights=False)) if config.init_from else "train"
    if not (folder / MANIFEST).is_file():
        return _prepare(data, tokenizer)
    prepared = open_prepared(folder)
    own = load_tokenizer(tokenizer) if config.init_from else prepared.tokenizer
    if own.fingerprint() != prepared.tokenizer.fingerprint():
        raise ValueError(
            f"data.source={data.source} was prepared with another tokenizer than that of "
            f"init_from={config.init_from}: prepare it with --tokenizer {config.init_from}, or "
            "name the code itself as data.source"
        )
    return prepared


def code_loader(
    config: CodeDataConfig,
    prepared: PreparedData,
    batch_size: int,
    start: int = 0,
    pin_memory: bool = False,
) -> Loader:
    """Returns batches of the split that the config names."""
    shard = prepared.train if config.split is Split.train else prepared.heldout
    return Loader(
        _dataset(config, prepared, shard),
        batch_size,
        start,
        config.workers,
        seq_length=config.seq_length,
        pad_id=prepared.tokenizer.pad_id,
        pin_memory=pin_memory,
    )


def _dataset(config: CodeDataConfig, prepared: PreparedData, shard: Shard) -> SampleSource:
    """Rows with holes, or of pairs where the documents have prompts."""
    prefixes = read_prefixes(shard.folder, shard.name)
    if prefixes[:, 1].any():
        return PairDataset(config, shard, prefixes.sum(axis=1))
    return CodeDataset(config, prepared.tokenizer, shard)


def _prepare(data: CodeDataConfig, tokenizer: str) -> PreparedData:
    """Prepares a source with the defaults, in a folder of the cache for what it holds now."""
    cache = cache_folder(DataConfig(cache_dir=data.cache_dir))
    config = PrepareConfig(
        sources=[data.source],
        out=str(cache / "code"),
        tokenizer=tokenizer,
        vocab_size=data.vocab_size,
        heldout_fraction=data.heldout_fraction,
    )
    settings = [list_sources(config).fingerprint(), tokenizer, data.vocab_size]
    described = json.dumps([*settings, data.heldout_fraction], sort_keys=True)
    key = hashlib.sha256(described.encode()).hexdigest()[:16]
    return prepare_code(replace(config, out=str(cache / f"code-{key}")))


def _begun(config: CodeTrainConfig) -> Transformer | None:
    """The model that goes on learning, its weights as numbers."""
    if not config.init_from:
        return None
    model, _ = load_model(config.init_from, dtype="float32", quantize="none")
    return model
