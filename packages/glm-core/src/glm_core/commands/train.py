"""`glm train`: pretrain a GLM."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from glm_core.commands.training import add_train_arguments, run_train

if TYPE_CHECKING:
    from glm_core.train.config import TrainConfig
    from glm_core.train.trainer import TrainResult

logger = logging.getLogger(__name__)

HELP = "pretrain a GLM; the same command again resumes"
EXAMPLE = """\
glm train experiment=debug run_dir=outputs/debug
glm train experiment=nano_text run_dir=outputs/nano_text trainer.max_steps=3000
glm train experiment=my_text data.source=/path/to/texts run_dir=outputs/mine
glm train experiment=nano_text --dry-run

Ctrl-C (or SIGTERM) finishes the step, saves and exits with status 0; the same command resumes."""
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_train_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Compose the config, then plan or train."""
    from glm_core.train.compose import TRAIN

    return run_train(args, "glm", TRAIN, lambda config: config.data.seq_length, _train)


def _train(config: TrainConfig) -> TrainResult:
    from dataclasses import replace

    from glm_core.data.config import DataConfig, Split
    from glm_core.data.loader import Loader, build_loader
    from glm_core.data.prepare import prepare_data
    from glm_core.train.blank_infilling import BlankInfillingTask
    from glm_core.train.callbacks import ConfigFile
    from glm_core.train.compose import to_yaml
    from glm_core.train.precision import resolve_device
    from glm_core.train.trainer import Trainer

    resolve_device(config.trainer.device)  # before the corpus is prepared, which can take minutes
    prepared = prepare_data(config.data)
    folder, tokens = prepared.train.folder, prepared.train.meta.num_tokens
    logger.info("corpus: %s tokens in %s (as data.source it stays as it is)", f"{tokens:,}", folder)
    held_out = replace(config.data, split=Split.heldout, workers=0)

    def loader(data: DataConfig, start: int = 0) -> Loader:
        return build_loader(
            data,
            prepared.tokenizer,
            config.trainer.micro_batch_size,
            start,
            prepared=prepared,
            pin_memory=resolve_device(config.trainer.device).type == "cuda",
        )

    trainer = Trainer(
        BlankInfillingTask(
            config.model, prepared.tokenizer, config.trainer.seed, config.trainer.attention.value
        ),
        lambda start: loader(config.data, start),
        config.trainer,
        config.run_dir,
        optim=config.optim,
        callbacks=[ConfigFile(to_yaml(config))],
        eval_loader=lambda: loader(held_out),
        identity=config.identity(prepared.train.meta.tokens_sha256),
    )
    return trainer.fit()
