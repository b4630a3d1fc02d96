"""Puts together what `codegeex train` runs: data, task, Trainer."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from torch import nn

from codegeex.fim.formats import find_format, write_format
from codegeex.training.config import CodeDataConfig, CodeTrainConfig
from codegeex.training.dataset import CodeDataset
from glm_core.data.config import Split
from glm_core.data.loader import Loader
from glm_core.data.prepare import PreparedData, open_prepared
from glm_core.model.config import TransformerConfig
from glm_core.train.blank_infilling import BlankInfillingTask
from glm_core.train.callbacks import ConfigFile
from glm_core.train.compose import Primary, to_yaml
from glm_core.train.optim import OptimConfig
from glm_core.train.precision import resolve_device
from glm_core.train.trainer import Trainer, TrainResult
from glm_core.train.trainer_config import TrainerConfig

logger = logging.getLogger(__name__)

TRAIN = Primary(
    schema=CodeTrainConfig,
    groups={
        "model": TransformerConfig,
        "data": CodeDataConfig,
        "optim": OptimConfig,
        "trainer": TrainerConfig,
    },
    package="codegeex",
)


class CodeTask(BlankInfillingTask):
    """Next-token prediction over rows of code; the exported folder says which format it learnt."""

    fim: str = "spm"

    def export(self, model: nn.Module, folder: Path) -> None:
        super().export(model, folder)
        write_format(find_format(self.fim), folder)


def train(config: CodeTrainConfig) -> TrainResult:
    """Trains to the end, or to the first stop request; resumes by itself.

    Raises:
        ValueError: the data is not there or does not fit the model.
    """
    resolve_device(config.trainer.device)
    prepared = open_prepared(config.data.source)
    task = CodeTask(
        config.model, prepared.tokenizer, config.trainer.seed, config.trainer.attention.value
    )
    task.fim = config.data.fim
    held_out = replace(config.data, split=Split.heldout, workers=0)
    size = config.trainer.micro_batch_size
    trainer = Trainer(
        task,
        lambda start: code_loader(config.data, prepared, size, start),
        config.trainer,
        config.run_dir,
        optim=config.optim,
        callbacks=[ConfigFile(to_yaml(config))],
        eval_loader=lambda: code_loader(held_out, prepared, size),
        identity=config.identity(prepared.train.meta.tokens_sha256),
    )
    return trainer.fit()


def code_loader(
    config: CodeDataConfig, prepared: PreparedData, batch_size: int, start: int = 0
) -> Loader:
    """Returns batches of the split that the config names."""
    shard = prepared.train if config.split is Split.train else prepared.heldout
    return Loader(
        CodeDataset(config, prepared.tokenizer, shard),
        batch_size,
        start,
        config.workers,
        seq_length=config.seq_length,
        pad_id=prepared.tokenizer.pad_id,
    )
