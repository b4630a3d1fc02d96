"""The transformer: one definition (transformer), its typed config, and the family's presets."""

from glm_core.model.config import (
    Activation,
    GateHalf,
    GeluForm,
    GenerationLayout,
    Norm,
    Position,
    PromptFrame,
    QkvLayout,
    Residual,
    RopeLayout,
    RopePrecision,
    ScoreOrder,
    TransformerConfig,
)
from glm_core.model.transformer import Transformer

__all__ = [
    "Activation",
    "GateHalf",
    "GeluForm",
    "GenerationLayout",
    "Norm",
    "Position",
    "PromptFrame",
    "QkvLayout",
    "Residual",
    "RopeLayout",
    "RopePrecision",
    "ScoreOrder",
    "Transformer",
    "TransformerConfig",
]
