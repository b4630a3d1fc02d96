"""`glm train`: pretrain a GLM."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from glm_core.cli import emit

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
    """Declare the flags; everything else is key=value, see configs/."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved config, the parameters and a memory plan, and train nothing",
    )


def run(args: argparse.Namespace) -> int:
    """Compose the config, then plan or train."""
    from glm_core.train.compose import TRAIN, compose_config, to_yaml

    if not args.overrides:
        return _list_experiments(args)
    config = compose_config(TRAIN, args.overrides)
    if args.dry_run:
        plan = _plan(config)
        emit(args, plan, f"{to_yaml(config)}\n{_plan_text(config, plan)}")
        return 0
    result = _train(config)
    emit(args, _summary(config, result), _summary_text(config, result))
    return 0


def _list_experiments(args: argparse.Namespace) -> int:
    """Bare `glm train` is bad usage, but the answer can be a useful one."""
    from glm_core.train.compose import TRAIN, describe_experiments

    described = describe_experiments(TRAIN)
    error = "say what to train, for example: glm train experiment=debug"
    width = max(map(len, described))
    listing = "\n".join(f"  experiment={name:<{width}}  {text}" for name, text in described.items())
    print(f"error: {error}\n\n{listing}", file=sys.stderr)
    if args.json:
        print(json.dumps({"error": error, "experiments": described}))
    return 2


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


def _summary(config: TrainConfig, result: TrainResult) -> dict[str, Any]:
    row = result.last_row
    return {
        "run_dir": config.run_dir,
        "step": result.step,
        "finished": result.finished,
        "loss": row.get("loss"),
        "tokens_per_second": row.get("tokens_per_second"),
        "model": f"{config.run_dir}/model" if result.finished else None,
    }


def _summary_text(config: TrainConfig, result: TrainResult) -> str:
    if not result.finished:
        return (
            f"Stopped after step {result.step} of {config.trainer.max_steps}."
            " The same command resumes."
        )
    return f"Model: {config.run_dir}/model (try: glm generate --model {config.run_dir}/model ...)"


def _plan(config: TrainConfig) -> dict[str, Any]:
    from dataclasses import asdict

    from glm_core.model.size import count_parameters
    from glm_core.train.memory_plan import plan_memory

    memory = plan_memory(config.model, config.trainer, config.data.seq_length)
    tokens = config.trainer.global_batch_size * config.data.seq_length
    return {
        "config": asdict(config),
        "parameters": count_parameters(config.model),
        "tokens_per_step": tokens,
        "tokens": tokens * config.trainer.max_steps,
        "memory_bytes": memory.to_dict(),
    }


def _plan_text(config: TrainConfig, plan: dict[str, Any]) -> str:
    lines = [
        f"parameters        {plan['parameters']:,}",
        f"tokens per step   {plan['tokens_per_step']:,}"
        f" ({config.trainer.accumulation_steps} microbatches)",
        f"tokens in the run {plan['tokens']:,}",
        "memory at the peak of a step (activations are an estimate)",
    ]
    for name, size in plan["memory_bytes"].items():
        lines.append(f"  {name.replace('_', ' '):<22} {size / 2**20:>10,.1f} MiB")
    return "\n".join(lines)
