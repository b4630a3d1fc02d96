"""How much memory a training step takes, from the configuration alone."""

from __future__ import annotations

from dataclasses import dataclass

from glm_core.model.config import TransformerConfig
from glm_core.model.size import count_parameters
from glm_core.train.precision import resolve_device, resolve_precision
from glm_core.train.trainer_config import AttentionChoice, Precision, TrainerConfig

_FP32 = 4


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes at the peak of a step, between forward and backward."""

    weights: int
    gradients: int
    optimizer: int
    ema: int
    low_precision_weights: int
    """Copies that autocast makes for the matrix products."""
    activations: int
    """An estimate: what the blocks keep for the backward."""

    @property
    def total(self) -> int:
        """The sum."""
        parts = (self.weights, self.gradients, self.optimizer, self.ema)
        return sum(parts) + self.low_precision_weights + self.activations

    def to_dict(self) -> dict[str, int]:
        """Bytes by name, with the total."""
        names = ("weights", "gradients", "optimizer", "ema", "low_precision_weights", "activations")
        return {name: getattr(self, name) for name in names} | {"total": self.total}


def plan_memory(model: TransformerConfig, trainer: TrainerConfig, seq_length: int) -> MemoryPlan:
    """Plan one step of `trainer.micro_batch_size` rows of `seq_length` tokens."""
    count = count_parameters(model)
    precision = resolve_precision(trainer.precision, resolve_device(trainer.device))
    element = _FP32 if precision is Precision.fp32 else 2
    tokens = trainer.micro_batch_size * seq_length
    # the other backends compute the weights of attention again in the backward
    pairs = seq_length * model.num_heads if trainer.attention is AttentionChoice.eager else 0
    return MemoryPlan(
        weights=_FP32 * count,
        gradients=_FP32 * count,
        optimizer=2 * _FP32 * count,
        ema=_FP32 * count if trainer.ema_decay else 0,
        low_precision_weights=0 if precision is Precision.fp32 else element * count,
        activations=tokens
        * _activation_bytes(model, element, pairs, recompute=trainer.activation_checkpointing),
    )


def _activation_bytes(
    model: TransformerConfig, element: int, pairs: int, *, recompute: bool
) -> int:
    """Bytes per token that the blocks keep; the residual stream stays fp32 under autocast."""
    heads = model.num_heads + 2 * model.num_kv_heads
    rotated = heads if model.is_rotary else 0
    attention = (heads + rotated + model.num_heads) * model.head_dim
    gates = 2 if model.is_gated else 1
    mlp = (gates + 1) * model.ffn_hidden_size
    block = (
        2 * model.hidden_size * _FP32 + (2 * model.hidden_size + attention + mlp + pairs) * element
    )
    if recompute:
        # the inputs of all blocks, and everything of the one that is being recomputed
        return model.num_blocks * model.hidden_size * _FP32 + block
    return model.num_blocks * block
