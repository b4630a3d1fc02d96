"""The transformer: one definition (transformer), its typed config, and the family's presets."""

from glm_core.model.config import (
    Activation,
    GateHalf,
    GeluForm,
    GenerationLayout,
    Norm,
    Position,
    QkvLayout,
    Residual,
    RopeLayout,
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
    "QkvLayout",
    "Residual",
    "RopeLayout",
    "Transformer",
    "TransformerConfig",
]
