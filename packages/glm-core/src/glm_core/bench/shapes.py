"""The model shapes that are measured."""

from __future__ import annotations

from dataclasses import dataclass

from glm_core.model import (
    Activation,
    GenerationLayout,
    Norm,
    Position,
    RopeLayout,
    TransformerConfig,
)


@dataclass(frozen=True)
class TrainShape:
    """One training workload: a causal model of the GLM-4 kind and its batch."""

    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_hidden_size: int
    vocab_size: int
    batch_size: int
    seq_length: int = 512

    def config(self) -> TransformerConfig:
        """Our description; transformers' `glm` model has the same algebra."""
        return TransformerConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            ffn_hidden_size=self.ffn_hidden_size,
            max_position_embeddings=self.seq_length,
            norm=Norm.rmsnorm,
            activation=Activation.swiglu,
            position=Position.rope,
            rope_layout=RopeLayout.interleaved,
            rotary_dim=self.hidden_size // self.num_heads // 2,
            dense_bias=False,
            mlp_bias=False,
            generation_layout=GenerationLayout.causal,
        )


TRAIN_SHAPES = {
    "10m": TrainShape(320, 6, 5, 896, 8192, batch_size=8),
    "50m": TrainShape(640, 8, 10, 1728, 16384, batch_size=4),
    "vocab65k": TrainShape(320, 4, 5, 896, 65024, batch_size=8),
}
