"""What the `train` commands of all packages have in common: list, plan, run, tell."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from glm_core.cli import emit

if TYPE_CHECKING:
    from glm_core.model.config import TransformerConfig
    from glm_core.train.compose import Primary
    from glm_core.train.trainer import TrainResult
    from glm_core.train.trainer_config import TrainerConfig


class Run(Protocol):
    """What every training's config says."""

    model: TransformerConfig
    trainer: TrainerConfig
    run_dir: str


RunT = TypeVar("RunT", bound=Run)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; everything else is key=value, see configs/."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved config, the parameters and a memory plan, and train nothing",
    )


def run_train(
    args: argparse.Namespace,
    program: str,
    primary: Primary[RunT],
    seq_length: Callable[[RunT], int],
    train: Callable[[RunT], TrainResult],
) -> int:
    """Compose the config, then plan or train.

    Args:
        args: with `overrides` and `dry_run`.
        program: what is typed before `train`.
        primary: the config.
        seq_length: tokens of a row, of a config.
        train: runs it.
    """
    from glm_core.train.compose import compose_config, to_yaml

    if not args.overrides:
        return _list_experiments(args, program, primary)
    config = compose_config(primary, args.overrides)
    if args.dry_run:
        plan = _plan(config, seq_length(config))
        emit(args, plan, f"{to_yaml(config)}\n{_plan_text(config, plan)}")
        return 0
    result = train(config)
    emit(args, _summary(config, result), _summary_text(config, result, program))
    return 0


def _list_experiments(args: argparse.Namespace, program: str, primary: Primary[Any]) -> int:
    """Bare `train` is bad usage, but the answer can be a useful one."""
    from glm_core.train.compose import describe_experiments

    described = describe_experiments(primary)
    error = f"say what to train, for example: {program} train experiment=debug"
    width = max(map(len, described))
    listing = "\n".join(f"  experiment={name:<{width}}  {text}" for name, text in described.items())
    print(f"error: {error}\n\n{listing}", file=sys.stderr)
    if args.json:
        print(json.dumps({"error": error, "experiments": described}))
    return 2


def _summary(config: Run, result: TrainResult) -> dict[str, Any]:
    row = result.last_row
    return {
        "run_dir": config.run_dir,
        "step": result.step,
        "finished": result.finished,
        "loss": row.get("loss"),
        "tokens_per_second": row.get("tokens_per_second"),
        "model": f"{config.run_dir}/model" if result.finished else None,
    }


def _summary_text(config: Run, result: TrainResult, program: str) -> str:
    if not result.finished:
        return (
            f"Stopped after step {result.step} of {config.trainer.max_steps}."
            " The same command resumes."
        )
    folder = f"{config.run_dir}/model"
    return f"Model: {folder} (try: {program} generate --model {folder} ...)"


def _plan(config: Run, seq_length: int) -> dict[str, Any]:
    from glm_core.model.size import count_parameters
    from glm_core.train.memory_plan import plan_memory

    memory = plan_memory(config.model, config.trainer, seq_length)
    tokens = config.trainer.global_batch_size * seq_length
    return {
        "config": asdict(config),  # type: ignore[call-overload]
        "parameters": count_parameters(config.model),
        "tokens_per_step": tokens,
        "tokens": tokens * config.trainer.max_steps,
        "memory_bytes": memory.to_dict(),
    }


def _plan_text(config: Run, plan: dict[str, Any]) -> str:
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
