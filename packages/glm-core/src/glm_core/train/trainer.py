"""The one training loop, for text and diffusion alike.

    Trainer(task, loader, config, run_dir).fit()

Running it again with the same arguments resumes from the newest checkpoint in `run_dir`, and ends
with the same weights, bit for bit, as if it had never been stopped: the learning rate and the
random numbers are functions of the step, the data of the number of samples consumed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.store import Checkpoint, CheckpointStore
from glm_core.train.callbacks import (
    Callback,
    LossCurve,
    MetricsFile,
    ProgressLine,
    TensorBoard,
)
from glm_core.train.engines.protocol import Engine
from glm_core.train.engines.torch import TorchEngine
from glm_core.train.identity import check_identity
from glm_core.train.metrics_log import read_metrics
from glm_core.train.optim import OptimConfig
from glm_core.train.run_lock import run_lock
from glm_core.train.signals import StopRequest
from glm_core.train.task import Task
from glm_core.train.trainer_config import TrainerConfig
from glm_core.train.window import Clock, Window

logger = logging.getLogger(__name__)

OpenLoader = Callable[[int], Iterable[Any]]
"""Gives the microbatches from sample number `start` on, for as long as they are asked for."""
OpenEvalLoader = Callable[[], Iterable[Any]]
"""Gives held-out microbatches from their beginning."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended."""

    step: int
    """Updates done."""
    finished: bool
    """Whether that is all of them; False after a stop request."""
    last_row: dict[str, Any]
    """The last row of metrics.jsonl; empty if there is none."""


class Trainer:
    """Runs a task: accumulation, clipping, schedule, logging, evaluation, checkpoints, resume.

    Args:
        task: the model and its loss.
        loader: `loader(start)` gives microbatches of `config.micro_batch_size` samples from sample
            `start` on; it must depend on nothing else.
        config: how long and how.
        run_dir: where everything is written.
        optim: optimizer and learning rate.
        callbacks: watchers beside the usual ones.
        eval_loader: gives the held-out microbatches, from their beginning each time; their loss is
            `eval_loss`.
        more_eval_loaders: as `eval_loader`, for the losses `eval_loss_NAME`.
        engine: how updates are computed; a `TorchEngine` by default.
        identity: what makes this run this run (model, data, ...), as JSON: a resume with another
            identity is refused.
    """

    def __init__(
        self,
        task: Task[Any],
        loader: OpenLoader,
        config: TrainerConfig,
        run_dir: Path | str,
        *,
        optim: OptimConfig | None = None,
        callbacks: Sequence[Callback] = (),
        eval_loader: OpenEvalLoader | None = None,
        more_eval_loaders: Mapping[str, OpenEvalLoader] | None = None,
        engine: Engine | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        if config.num_threads:
            torch.set_num_threads(config.num_threads)
        self.task = task
        self.config = config
        self.optim = optim or OptimConfig()
        self.run_dir = Path(run_dir)
        self.step = 0
        self.consumed_samples = 0
        self.store = CheckpointStore(self.run_dir / "checkpoints", config.keep_last)
        self._seed(0)
        self.engine: Engine = engine or TorchEngine(task, self.optim, config)
        self._loader = loader
        self._eval_loaders = {"eval_loss": eval_loader} if eval_loader else {}
        for name, more in (more_eval_loaders or {}).items():
            self._eval_loaders[f"eval_loss_{name}"] = more
        self._identity = dict(identity or {})
        self._callbacks = [ProgressLine(), MetricsFile(), LossCurve(), *callbacks]
        if config.tensorboard:
            self._callbacks.append(TensorBoard())
        self._batches: Iterator[Any] = iter(())
        self._window = Window(self.engine.device)
        self._clock = Clock()
        self._saved_step = 0
        self._seconds_per_step = 0.0

    def fit(self) -> TrainResult:
        """Train to `config.max_steps`, or to the first stop request; resumes by itself."""
        with run_lock(self.run_dir), StopRequest() as stop:
            self._resume()
            for callback in self._callbacks:
                callback.on_start(self)
            self._batches = iter(self._loader(self.consumed_samples))
            self._clock = Clock()
            while self.step < self.config.max_steps and not stop.requested:
                self.train_step()
            self._batches = iter(())  # ends the loader's workers
            self._save()
            self._finish()
        rows = read_metrics(self.run_dir / "metrics.jsonl")
        last_row = rows[-1] if rows else {}
        return TrainResult(self.step, self.step >= self.config.max_steps, last_row)

    def train_step(self) -> None:
        """One update and what is due after it."""
        self._seed(self.step)
        self._accumulate_gradients()
        self._update_weights()
        self.step += 1
        if self._is_due(self.config.log_every) or self._evaluation_due() or self.step == 1:
            self._log()
        if self._is_due(self.config.checkpoint_every):
            self._save()

    def _accumulate_gradients(self) -> None:
        for _ in range(self.config.accumulation_steps):
            batch = self._next_batch()
            loss = self.engine.forward_backward(batch)
            self._window.add_loss(loss, tokens=batch.num_tokens, flops=self.task.flops(batch))
            self.consumed_samples += self.config.micro_batch_size

    def _update_weights(self) -> None:
        learning_rate = self.optim.learning_rate(self.step, self.config.max_steps)
        self._window.add_update(self.engine.update(learning_rate, self.step))

    def _next_batch(self) -> Any:
        try:
            return next(self._batches).to(self.engine.device)
        except StopIteration:
            raise ValueError(
                f"the data ended after {self.consumed_samples} samples, in step {self.step + 1} of"
                f" {self.config.max_steps}: give a loader that repeats its data, or set"
                f" trainer.max_steps={self.step}"
            ) from None

    def _seed(self, step: int) -> None:
        # Random numbers are a function of (seed, step), so there is no generator state to save.
        # Only 32 bits reach the CPU generator, hence no shifting.
        torch.manual_seed((self.config.seed * 1_000_003 + step) % 2**31)

    def _is_due(self, every: int) -> bool:
        is_last = self.step == self.config.max_steps
        return bool(every) and (is_last or self.step % every == 0)

    def _evaluation_due(self) -> bool:
        return bool(self._eval_loaders) and self._is_due(self.config.eval_every)

    def _log(self) -> None:
        values = self._window.read()  # waits for the device
        seconds = self._clock.lap()
        row = self._row(values, seconds)
        if self._evaluation_due():
            with self._clock.paused():
                row |= {name: self.evaluate(open) for name, open in self._eval_loaders.items()}
        self._report_skipped(values)
        self._window.clear()
        for callback in self._callbacks:
            callback.on_log(self, row)

    def _row(self, values: Mapping[str, float], seconds: float) -> dict[str, Any]:
        window = self._window
        seconds_per_step = seconds / max(1, window.steps)
        # the first steps are slow (compilation, caches): later windows soon outweigh them
        previous = self._seconds_per_step or seconds_per_step
        self._seconds_per_step = (previous + seconds_per_step) / 2
        remaining = self.config.max_steps - self.step
        extra = {k: v for k, v in values.items() if k not in ("loss", "grad_norm", "streak")}
        return {
            "step": self.step,
            "loss": values["loss"],
            "lr": self.optim.learning_rate(self.step - 1, self.config.max_steps),
            "grad_norm": values["grad_norm"],
            "tokens_per_second": window.tokens / seconds,
            "flops_per_second": window.flops / seconds,
            "samples": self.consumed_samples,
            "memory_bytes": self.engine.peak_memory(),
            "eta_seconds": remaining * self._seconds_per_step,
            **extra,
        }

    def _report_skipped(self, values: Mapping[str, float]) -> None:
        if not values["skipped"]:
            return
        logger.warning(
            "skipped %d of the last %d updates: the gradient was not finite",
            values["skipped"],
            self._window.steps,
        )
        if values["streak"] >= self.config.max_skipped_steps:
            raise FloatingPointError(
                f"the gradient was not finite in {values['streak']:.0f} updates in a row up to step"
                f" {self.step} (trainer.max_skipped_steps={self.config.max_skipped_steps}): lower"
                f" optim.lr (now {self.optim.lr}), use trainer.precision=fp32, or look at the data"
                f" near sample {self.consumed_samples}; saved checkpoints are in"
                f" {self.store.folder}"
            )

    def evaluate(self, loader: OpenEvalLoader) -> float:
        """Mean loss per target on the first `eval_batches` held-out microbatches."""
        window = Window(self.engine.device)
        with self.engine.averaged_weights():
            for number, batch in enumerate(loader()):
                if number == self.config.eval_batches:
                    break
                loss = self.engine.evaluate(batch.to(self.engine.device))
                window.add_loss(loss, tokens=0, flops=0.0)
        return window.read()["loss"]

    def _save(self) -> None:
        if self.step == self._saved_step:
            return
        with self._clock.paused():
            state = {
                "step": self.step,
                "consumed_samples": self.consumed_samples,
                "seed": self.config.seed,
                "window": self._window.state(),
                "identity": self._identity,
            }
            self.store.save(self.step, self.engine.state(), state)
            self._saved_step = self.step

    def _resume(self) -> None:
        self.store.clean()
        checkpoint = self.store.load_latest()
        if checkpoint is None:
            return
        check_identity(self.run_dir, checkpoint.state.get("identity", {}), self._identity)
        try:
            self.engine.load_state(checkpoint.parts)
            self._load_progress(checkpoint)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"the checkpoint {checkpoint.path} does not fit this run ({error}); go on with the"
                " settings that made it, or choose another run_dir"
            ) from error
        logger.info("resuming from %s", checkpoint.path)

    def _load_progress(self, checkpoint: Checkpoint) -> None:
        self.step = self._saved_step = int(checkpoint.state["step"])
        if self.step > self.config.max_steps:
            raise ValueError(
                f"it has {self.step} steps already, more than"
                f" trainer.max_steps={self.config.max_steps}"
            )
        self.consumed_samples = int(checkpoint.state["consumed_samples"])
        self._window.load_state(checkpoint.state["window"])

    def _finish(self) -> None:
        for callback in self._callbacks:
            callback.on_end(self)
        if self.step < self.config.max_steps:
            logger.info(
                "stopped after step %d of %d and saved %s; run the same command again to resume",
                self.step,
                self.config.max_steps,
                self.store.path(self.step),
            )
            return
        with self.engine.averaged_weights():
            self.task.export(self.engine.model, self.run_dir / "model")
        logger.info("trained %d steps; the model is in %s", self.step, self.run_dir / "model")
