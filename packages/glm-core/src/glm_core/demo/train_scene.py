"""The scene that trains a fresh tiny GLM while one waits."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_core.demo.curve import loss_curve
from glm_core.demo.page import code, facts, figure, paragraph, table
from glm_core.demo.scenes import SceneContext, SceneResult
from glm_core.demo.text_scenes import CLOZES

if TYPE_CHECKING:
    from glm_core.data.prepare import PreparedData
    from glm_core.tokenizer.protocol import Tokenizer
    from glm_core.train.blank_infilling import BlankInfillingTask
    from glm_core.train.config import TrainConfig

logger = logging.getLogger(__name__)

_QUESTIONS = [cloze.text for cloze in CLOZES[:3]]
_DRAWS = 3
_WARM_UP_STEPS, _TIMED_STEPS = 3, 5
_MIN_STEPS = 20


class TrainLive:
    """Preparation, training, export and use of a model of half a million parameters."""

    title = "Train a GLM from nothing"

    def run(self, context: SceneContext) -> SceneResult:
        """Train for `context.train_seconds`, then fill blanks with what came out."""
        from glm_core.checkpoint.loading import load_model
        from glm_core.data.prepare import prepare_data
        from glm_core.train.blank_infilling import BlankInfillingTask
        from glm_core.train.metrics_log import read_metrics

        folder = context.output_dir / "train-live"
        config = _config(folder, context.seed)
        prepared = prepare_data(config.data)
        task = BlankInfillingTask(config.model, prepared.tokenizer, context.seed)
        config = _with_steps_for(context.train_seconds, config, task, prepared)
        before = _draw(task.build_model(), prepared.tokenizer)
        start = time.perf_counter()
        _train(config, task, prepared)
        seconds = time.perf_counter() - start
        after = _draw(*load_model(folder / "run" / "model"))
        rows = read_metrics(folder / "run" / "metrics.jsonl")
        return _result(config, prepared, rows, seconds, before, after)


def _config(folder: Path, seed: int) -> TrainConfig:
    from glm_core.train.compose import TRAIN, compose_config

    config = compose_config(TRAIN, ["experiment=demo"])
    return replace(
        config,
        data=replace(config.data, seed=seed),
        trainer=replace(config.trainer, seed=seed),
        run_dir=str(folder / "run"),
    )


def _with_steps_for(
    seconds: float, config: TrainConfig, task: BlankInfillingTask, prepared: PreparedData
) -> TrainConfig:
    """The config with as many steps as fit into the time, by a measurement of a few."""
    from glm_core.data.loader import build_loader
    from glm_core.train.engines.torch import TorchEngine

    batch_size = config.trainer.micro_batch_size
    loader = iter(build_loader(config.data, prepared.tokenizer, batch_size, prepared=prepared))
    engine = TorchEngine(task, config.optim, config.trainer)
    start = time.perf_counter()
    for step in range(_WARM_UP_STEPS + _TIMED_STEPS):
        if step == _WARM_UP_STEPS:
            start = time.perf_counter()
        engine.forward_backward(next(loader).to(engine.device))
        engine.update(config.optim.lr, step)
    per_step = (time.perf_counter() - start) / _TIMED_STEPS
    steps = max(_MIN_STEPS, int(seconds / per_step))
    logger.info("a step takes %.0f ms: %d steps fit into %.0f s", per_step * 1e3, steps, seconds)
    trainer = replace(
        config.trainer,
        max_steps=steps,
        log_every=max(1, steps // 60),
        eval_every=max(1, steps // 6),
    )
    warm_up = min(config.optim.warmup_steps, steps // 5)
    return replace(config, trainer=trainer, optim=replace(config.optim, warmup_steps=warm_up))


def _train(config: TrainConfig, task: BlankInfillingTask, prepared: PreparedData) -> None:
    from glm_core.data.config import Split
    from glm_core.data.loader import build_loader
    from glm_core.train.trainer import Trainer

    size, tokenizer = config.trainer.micro_batch_size, prepared.tokenizer
    heldout = replace(config.data, split=Split.heldout)
    shutil.rmtree(config.run_dir, ignore_errors=True)  # a fresh model each time, never a resume
    Trainer(
        task,
        lambda start: build_loader(config.data, tokenizer, size, start, prepared=prepared),
        config.trainer,
        config.run_dir,
        optim=config.optim,
        eval_loader=lambda: build_loader(heldout, tokenizer, size, prepared=prepared),
    ).fit()


def _draw(model: Any, tokenizer: Tokenizer) -> list[str]:
    """Three answers drawn for each question, joined by slashes."""
    from glm_core.infer.sampling import SamplingConfig
    from glm_core.infer.text_generator import TextGenerator

    generator = TextGenerator(model, tokenizer)
    configs = [
        SamplingConfig(max_new_tokens=6, min_new_tokens=1, temperature=0.7, seed=seed)
        for seed in range(_DRAWS)
    ]
    drawn = [generator.fill_batch([text] * _DRAWS, configs) for text in _QUESTIONS]
    return [" / ".join(_quoted(fill.blanks[0].text) for fill in fills) for fills in drawn]


def _quoted(answer: str) -> str:
    return f"“{' '.join(answer.split())}”"


def _result(
    config: TrainConfig,
    prepared: PreparedData,
    rows: list[dict[str, Any]],
    seconds: float,
    before: list[str],
    after: list[str],
) -> SceneResult:
    heldout = [row["eval_loss"] for row in rows if "eval_loss" in row]
    tokens_per_step = config.trainer.global_batch_size * config.data.seq_length
    tokens = rows[-1]["step"] * tokens_per_step
    data = {
        "steps": rows[-1]["step"],
        "seconds": round(seconds, 1),
        "tokens_per_second": round(tokens / seconds),
        "first_loss": rows[0]["loss"],
        "last_loss": rows[-1]["loss"],
        "heldout_loss": heldout[-1],
        "answers": dict(zip(_QUESTIONS, after, strict=True)),
    }
    columns = zip(_QUESTIONS, before, after, strict=True)
    blocks = [
        paragraph(
            "A transformer with random weights reads the documentation of Python's standard "
            f"library, {prepared.train.num_tokens:,} tokens, with words cut out, and learns to put "
            "them back. A minute teaches which words are common and which follow each other; "
            "nano-text had the same lesson for an hour and a half."
        ),
        facts(
            [
                ("steps", f"{data['steps']:,}"),
                ("time", f"{seconds:.0f} s"),
                ("tokens per second", f"{data['tokens_per_second']:,}"),
                ("loss, first to last", f"{data['first_loss']:.2f} → {data['last_loss']:.2f}"),
                ("held-out loss", f"{heldout[-1]:.2f}"),
            ]
        ),
        figure(
            loss_curve([r["step"] for r in rows], [r["loss"] for r in rows], "Training loss"),
            "Training loss in nats per blanked token: thin as measured, bold as a moving average.",
        ),
        table(["three answers drawn", "before", f"after {seconds:.0f} s"], columns),
        paragraph("The same from the command line; run it twice and the second resumes:"),
        code("glm train experiment=demo run_dir=outputs/demo_model"),
    ]
    text = (
        f"  {data['steps']} steps in {seconds:.0f} s, loss {data['first_loss']:.2f} -> "
        f"{data['last_loss']:.2f}, held-out {heldout[-1]:.2f}"
    )
    return SceneResult(blocks=blocks, data=data, text=text)
