"""A task small enough to train in milliseconds, and a script that is killed while it trains it.

python tiny_run.py RUN_DIR [name=value of TrainerConfig ...] kill_at=STEP
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glm_core.checkpoint.files import write_safetensors
from glm_core.train.callbacks import Callback
from glm_core.train.optim import OptimConfig
from glm_core.train.task import LossSum
from glm_core.train.trainer import Trainer
from glm_core.train.trainer_config import TrainerConfig

VOCAB, WIDTH, LENGTH = 17, 8, 6


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.dropout(self.linear(self.norm(x)), 0.1, self.training)


class TinyModel(nn.Module):
    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(layers))
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@dataclass
class TinyBatch:
    ids: Tensor
    labels: Tensor

    @property
    def num_tokens(self) -> int:
        return self.ids.numel()

    def to(self, device: torch.device) -> TinyBatch:
        return TinyBatch(self.ids.to(device), self.labels.to(device))


class TinyTask:
    """Predicts a label per position; rows have different numbers of labels."""

    def __init__(self, poison: frozenset[int] = frozenset(), layers: int = 2) -> None:
        self.calls = 0
        self.poison = poison
        self.layers = layers

    def build_model(self) -> nn.Module:
        return TinyModel(self.layers)

    def loss(self, model: nn.Module, batch: TinyBatch) -> LossSum:
        logits = model(batch.ids).float()
        total = nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100, reduction="sum"
        )
        if self.calls in self.poison:
            total = total * float("nan")
        self.calls += 1
        correct = (logits.argmax(-1) == batch.labels).sum()
        return LossSum(total, (batch.labels != -100).sum(), {"accuracy": correct})

    def flops(self, batch: TinyBatch) -> float:
        return 6.0 * batch.num_tokens

    def export(self, model: nn.Module, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / "model.safetensors", model.state_dict())


def sample(index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(index)
    ids = torch.randint(VOCAB, (LENGTH,), generator=generator)
    labels = (ids * 3 + 1) % VOCAB
    labels[: index % LENGTH] = -100
    return ids, labels


def batches(start: int, batch_size: int) -> Iterator[TinyBatch]:
    while True:
        rows = [sample(index) for index in range(start, start + batch_size)]
        yield TinyBatch(torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows]))
        start += batch_size


class Kill(Callback):
    """Sends its own process a signal, after the row of a step."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_log(self, trainer: Trainer, row: Any) -> None:
        if row["step"] == self.step:
            os.kill(os.getpid(), self.number)


def tiny_trainer(run_dir: Path, task: TinyTask | None = None, **settings: Any) -> Trainer:
    callbacks = settings.pop("callbacks", ())
    keywords = {
        name: settings.pop(name)
        for name in ("eval_loader", "more_eval_loaders", "identity", "engine")
        if name in settings
    }
    optim = settings.pop("optim", None) or OptimConfig(lr=0.01, warmup_steps=2)
    defaults = {"max_steps": 8, "micro_batch_size": 2, "global_batch_size": 4, "log_every": 1}
    config = TrainerConfig(**(defaults | {"precision": "fp32", "device": "cpu"} | settings))
    return Trainer(
        task or TinyTask(),
        lambda start: batches(start, config.micro_batch_size),
        config,
        run_dir,
        optim=optim,
        callbacks=callbacks,
        **keywords,
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    run_dir, *pairs = sys.argv[1:]
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, value = pair.split("=")
        settings[name] = float(value) if "." in value else int(value)
    callbacks = [Kill(settings.pop("kill_at"), signal.SIGKILL)]
    torch.set_num_threads(1)
    tiny_trainer(Path(run_dir), callbacks=callbacks, **settings).fit()


if __name__ == "__main__":
    main()
