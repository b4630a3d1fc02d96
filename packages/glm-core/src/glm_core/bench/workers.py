"""One contender of `glm bench train` in a process of its own.

    python -m glm_core.bench.workers '{"contender": "ours", "shape": "10m", ...}'

The process builds its model, then trains `steps_per_round` steps for each line that it reads, and
answers each with one line of JSON. A process per contender gives each its own peak memory.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from glm_core.attention import Causal
from glm_core.bench.shapes import TRAIN_SHAPES, TrainShape
from glm_core.data.batch import IGNORE, Batch
from glm_core.model import Transformer
from glm_core.train.callbacks import Callback
from glm_core.train.cpu_memory import peak_resident_bytes
from glm_core.train.precision import autocast, resolve_precision
from glm_core.train.task import LossSum
from glm_core.train.trainer import Trainer
from glm_core.train.trainer_config import Precision, TrainerConfig

if TYPE_CHECKING:
    from transformers import GlmConfig


def random_tokens(shape: TrainShape, step: int) -> Tensor:
    """The same batch for every contender, int64 [B, T + 1]."""
    generator = torch.Generator().manual_seed(step)
    size = (shape.batch_size, shape.seq_length + 1)
    return torch.randint(shape.vocab_size, size, generator=generator)


class Gate(Callback):
    """Holds the Trainer after each round until the parent asks for the next one."""

    def __init__(self, steps_per_round: int) -> None:
        self.steps_per_round = steps_per_round
        self.started = 0.0

    def on_start(self, trainer: Trainer) -> None:
        self.wait()

    def on_log(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        if row["step"] % self.steps_per_round == 0:
            answer(time.perf_counter() - self.started, row["loss"])
            self.wait()

    def wait(self) -> None:
        """Sleeps until a line comes; the end of input ends the process."""
        if not sys.stdin.readline():
            raise SystemExit(0)
        self.started = time.perf_counter()


def answer(seconds: float, loss: float) -> None:
    """Tells the parent how long a round took, and the peak resident memory in bytes so far."""
    result = {"seconds": seconds, "loss": loss, "peak_bytes": peak_resident_bytes()}
    print(json.dumps(result), flush=True)


class CausalTask:
    """Next-token prediction with our model."""

    def __init__(self, shape: TrainShape) -> None:
        self.shape = shape

    def build_model(self) -> nn.Module:
        model = Transformer(self.shape.config())
        model.init_weights(0)
        return model

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        assert isinstance(model, Transformer)
        hidden_BTD = model(batch.input_ids, batch.position_ids, batch.mask)
        total, weight = model.loss(hidden_BTD, batch.labels)
        return LossSum(total, weight, {})

    def flops(self, batch: Batch) -> float:
        return 0.0

    def export(self, model: nn.Module, folder: Path) -> None:
        """A benchmark keeps no model."""


def causal_batches(shape: TrainShape, start: int) -> Iterator[Batch]:
    """Batches as transformers' loss sees them: each column predicts the next, the last nothing."""
    positions_B2T = torch.zeros(shape.batch_size, 2, shape.seq_length, dtype=torch.int64)
    positions_B2T[:, 0] = torch.arange(shape.seq_length)
    step = start // shape.batch_size
    while True:
        input_ids = random_tokens(shape, step)[:, :-1]
        labels = torch.full_like(input_ids, IGNORE)
        labels[:, :-1] = input_ids[:, 1:]
        lengths = (shape.seq_length,) * shape.batch_size
        yield Batch(input_ids, labels, positions_B2T, Causal(), lengths)
        step += 1


def run_ours(shape: TrainShape, precision: Precision, compiled: bool, steps: int) -> None:
    """Our Trainer, whole, with a gate in its log."""
    config = TrainerConfig(
        max_steps=10**6,
        micro_batch_size=shape.batch_size,
        global_batch_size=shape.batch_size,
        checkpoint_every=0,
        log_every=steps,
        precision=precision,
        compile=compiled,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            CausalTask(shape),
            lambda start: causal_batches(shape, start),
            config,
            folder,
            callbacks=[Gate(steps)],
        )
        trainer.fit()


def peer_config(shape: TrainShape) -> GlmConfig:
    """transformers' description of the same model."""
    from transformers import GlmConfig

    # A dict, because GlmConfig's signature leaves out what it hands to its base class.
    settings: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_heads,
        "head_dim": shape.hidden_size // shape.num_heads,
        "intermediate_size": shape.ffn_hidden_size,
        "max_position_embeddings": shape.seq_length,
        "rms_norm_eps": 1e-5,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "use_cache": False,
        "pad_token_id": None,
        "attn_implementation": "sdpa",
    }
    return GlmConfig(**settings)


def run_transformers(shape: TrainShape, precision: Precision, compiled: bool, steps: int) -> None:
    """transformers' GLM in the plainest loop: no Trainer of theirs, which would only add to it."""
    from transformers import GlmForCausalLM

    torch.manual_seed(0)
    model = GlmForCausalLM(peer_config(shape)).train()
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    gate, device, step = Gate(steps), torch.device("cpu"), 0
    precision = resolve_precision(precision, device)
    while True:
        gate.wait()
        for _ in range(steps):
            input_ids = random_tokens(shape, step)[:, :-1]
            with autocast(precision, device):
                loss = forward(input_ids=input_ids, labels=input_ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
        answer(time.perf_counter() - gate.started, loss.item())


RUNNERS = {"ours": run_ours, "transformers": run_transformers}


def main() -> None:
    """Reads the job from the command line and serves rounds until the input ends."""
    job = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    torch.set_num_threads(job["threads"])
    RUNNERS[job["contender"]](
        TRAIN_SHAPES[job["shape"]], Precision(job["precision"]), job["compiled"], job["steps"]
    )


if __name__ == "__main__":
    main()
