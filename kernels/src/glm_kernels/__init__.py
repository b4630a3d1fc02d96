"""Fused operations of the GLM family: one public function per op, a choice of backends behind it.

`glm_kernels.reference` holds the plain formula of every op; importing this package loads torch
and nothing heavier.
"""

import glm_kernels.cpu  # noqa: F401  registers its backend
import glm_kernels.triton  # noqa: F401  registers its backend; imports no triton
from glm_kernels.activation import geglu, gelu, swiglu
from glm_kernels.attention import VisibleKeys, attention
from glm_kernels.cross_entropy import fused_linear_cross_entropy
from glm_kernels.group_norm import group_norm_silu
from glm_kernels.memory import keep_freed_memory
from glm_kernels.modulate import gate_modulate, modulate
from glm_kernels.norm import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from glm_kernels.registry import (
    available_backends,
    dispatch,
    register,
    registered_ops,
    use_backend,
)
from glm_kernels.rope import apply_rope, apply_rope_2d, rope_tables
from glm_kernels.softmax import scale_mask_softmax
from glm_kernels.weight_only import (
    ActivationBits,
    PackedWeight,
    dequantize_packed,
    linear_weight_only,
    pack_weight,
)

__all__ = [
    "ActivationBits",
    "PackedWeight",
    "VisibleKeys",
    "add_layer_norm",
    "add_rms_norm",
    "apply_rope",
    "apply_rope_2d",
    "attention",
    "available_backends",
    "dequantize_packed",
    "dispatch",
    "fused_linear_cross_entropy",
    "gate_modulate",
    "geglu",
    "gelu",
    "group_norm_silu",
    "keep_freed_memory",
    "layer_norm",
    "linear_weight_only",
    "modulate",
    "pack_weight",
    "register",
    "registered_ops",
    "rms_norm",
    "rope_tables",
    "scale_mask_softmax",
    "swiglu",
    "use_backend",
]
