"""Settings of the Trainer: the same for every task."""

import math
from dataclasses import dataclass
from enum import StrEnum


class Precision(StrEnum):
    """Arithmetic of forward and backward; weights and optimizer state are always fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class AttentionChoice(StrEnum):
    """Which attention backend computes; see glm_core.attention."""

    auto = "auto"
    eager = "eager"
    sdpa = "sdpa"
    flex = "flex"
    triton = "triton"
    xformers = "xformers"
    cpu = "cpu"


@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    """How long, how much at once, how exact, and what is kept."""

    max_steps: int = 1000
    """Updates in the whole run, those before a resume included."""
    micro_batch_size: int = 8
    """Samples in one forward and backward: what must fit into memory."""
    global_batch_size: int = 8
    """Samples in one update; more than micro_batch_size means gradient accumulation."""
    checkpoint_every: int = 500
    """Updates between checkpoints; 0 saves only at the end and when stopped."""
    keep_last: int = 2
    """Checkpoints that stay on disk."""
    log_every: int = 10
    """Updates between progress lines and rows of metrics.jsonl."""
    eval_every: int = 0
    """Updates between evaluations on held-out data; 0 for none."""
    eval_batches: int = 16
    """Microbatches in one evaluation."""
    grad_clip: float = 1.0
    """Largest gradient norm; 0 for no clipping."""
    precision: Precision = Precision.auto
    """auto: bf16 where the hardware multiplies it fast; elsewhere fp16 on CUDA, fp32 on a CPU."""
    attention: AttentionChoice = AttentionChoice.auto
    """auto: the fastest as measured by `glm bench kernels --tune`, or a good guess."""
    compile: bool = False
    """Whether to torch.compile the model, block by block."""
    activation_checkpointing: bool = False
    """Whether to recompute each block in the backward instead of keeping its activations."""
    ema_decay: float = 0.0
    """Decay of the averaged weights, which are then the exported ones; 0 for none."""
    max_skipped_steps: int = 20
    """Updates in a row that may be skipped for non-finite gradients before the run gives up."""
    tensorboard: bool = False
    """Whether to write TensorBoard files to run_dir/tensorboard."""
    seed: int = 1234
    """Seed of everything random in the Trainer and in the task."""
    device: str = "auto"
    """auto (cuda if there is one, else cpu), cpu, cuda, or cuda:1 and so on."""
    num_threads: int = 0
    """CPU threads of torch; 0 leaves torch's own choice."""

    def __post_init__(self) -> None:
        self.precision = Precision(self.precision)
        self.attention = AttentionChoice(self.attention)
        for name in ("max_steps", "micro_batch_size", "global_batch_size", "keep_last"):
            self._at_least(name, 1)
        for name in ("log_every", "eval_batches", "max_skipped_steps"):
            self._at_least(name, 1)
        for name in ("checkpoint_every", "eval_every", "grad_clip", "num_threads", "seed"):
            self._at_least(name, 0)
        if self.seed >= 2**63:
            raise ValueError(f"trainer.seed is {self.seed}; it must be below 2^63")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"trainer.ema_decay is {self.ema_decay}; it must be in [0, 1), for example 0.999"
            )
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"trainer.global_batch_size ({self.global_batch_size}) must be a multiple of"
                f" trainer.micro_batch_size ({self.micro_batch_size})"
            )

    def _at_least(self, name: str, minimum: int) -> None:
        value = getattr(self, name)
        if not minimum <= value < math.inf:
            raise ValueError(f"trainer.{name} is {value}; it must be at least {minimum}")

    @property
    def accumulation_steps(self) -> int:
        """Microbatches in one update."""
        return self.global_batch_size // self.micro_batch_size
