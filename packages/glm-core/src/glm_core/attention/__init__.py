"""Attention: masks as values (spec), one file per backend, and the choice among them (dispatch)."""

from glm_core.attention.backend import Attend, MaskRequest, Scaling
from glm_core.attention.dispatch import (
    BACKENDS,
    PreparedAttention,
    check_name,
    prepare_attention,
)
from glm_core.attention.spec import (
    Causal,
    Full,
    LeftPadded,
    MaskSpec,
    Packed,
    Prefixed,
    PrefixLM,
    RightPadded,
    materialize,
)

__all__ = [
    "Attend",
    "BACKENDS",
    "Causal",
    "Full",
    "LeftPadded",
    "MaskRequest",
    "MaskSpec",
    "Packed",
    "PrefixLM",
    "Prefixed",
    "PreparedAttention",
    "RightPadded",
    "Scaling",
    "check_name",
    "materialize",
    "prepare_attention",
]
