"""What a run tells: the progress line, metrics.jsonl, TensorBoard, the loss curve."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_core.train.loss_curve import draw_loss_curve
from glm_core.train.metrics_log import append_metrics, replace_text, truncate_metrics

if TYPE_CHECKING:
    from glm_core.train.trainer import Trainer

logger = logging.getLogger(__name__)


class Callback:
    """Something that watches a run; override what is of interest."""

    def on_start(self, trainer: Trainer) -> None:
        """After a resume, before the first step; `trainer.step` updates are already done."""

    def on_log(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        """With each row of metrics: `step`, `loss`, `lr`, `grad_norm`, `tokens_per_second`, ..."""

    def on_end(self, trainer: Trainer) -> None:
        """After the last step, finished or stopped, when the checkpoint is written."""


class ProgressLine(Callback):
    """One line per row in the log."""

    def on_log(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        logger.info("%s", progress_line(row, trainer.config.max_steps))


class MetricsFile(Callback):
    """run_dir/metrics.jsonl; a resumed run first drops the rows that it will write again."""

    def on_start(self, trainer: Trainer) -> None:
        truncate_metrics(trainer.run_dir / "metrics.jsonl", trainer.step)

    def on_log(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        append_metrics(trainer.run_dir / "metrics.jsonl", row)


class ConfigFile(Callback):
    """run_dir/config.yaml, written once it is certain that the run may go on with it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def on_start(self, trainer: Trainer) -> None:
        replace_text(trainer.run_dir / "config.yaml", self.text)


class LossCurve(Callback):
    """run_dir/loss.png at the end."""

    def on_end(self, trainer: Trainer) -> None:
        draw_loss_curve(trainer.run_dir / "metrics.jsonl", trainer.run_dir / "loss.png")


class TensorBoard(Callback):
    """Event files in run_dir/tensorboard; needs the tensorboard package."""

    def on_start(self, trainer: Trainer) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "trainer.tensorboard needs the package tensorboard: pip install tensorboard,"
                " or set trainer.tensorboard=false"
            ) from error
        folder = Path(trainer.run_dir) / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=trainer.step + 1)

    def on_log(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def on_end(self, trainer: Trainer) -> None:
        self._writer.close()


def progress_line(row: Mapping[str, Any], max_steps: int) -> str:
    """`step 120/1000 loss 2.314 lr 3.0e-04 grad_norm 0.91 tok/s 41,203 mem 3.1GiB eta 12m`."""
    parts = [
        f"step {row['step']}/{max_steps}",
        f"loss {row['loss']:.3f}",
        f"lr {row['lr']:.1e}",
        f"grad_norm {row['grad_norm']:.2f}",
        f"tok/s {row['tokens_per_second']:,.0f}",
        f"mem {row['memory_bytes'] / 2**30:.1f}GiB",
        f"eta {format_seconds(row['eta_seconds'])}",
    ]
    if "eval_loss" in row:
        held_out = [f"{name} {value:.3f}" for name, value in row.items() if name[:9] == "eval_loss"]
        parts[2:2] = held_out
    return " ".join(parts)


def format_seconds(seconds: float) -> str:
    """`45s`, `12m`, `3h05m`, `2d04h`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 24:
        return f"{hours}h{minutes % 60:02}m"
    return f"{hours // 24}d{hours % 24:02}h"
