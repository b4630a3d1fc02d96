"""The typed description of a transformer of the GLM family.

Every released member is a value of this class (see presets.py); what sets a member apart is a
field, never its name.
"""

from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

from glm_core.model.choices import (
    Activation,
    GateHalf,
    GeluForm,
    GenerationLayout,
    Norm,
    NormPrecision,
    Position,
    PromptFrame,
    QkvLayout,
    Residual,
    RopeLayout,
    RopePrecision,
    ScoreOrder,
)

__all__ = [
    "Activation",
    "GateHalf",
    "GeluForm",
    "GenerationLayout",
    "Norm",
    "NormPrecision",
    "Position",
    "PromptFrame",
    "QkvLayout",
    "Residual",
    "RopeLayout",
    "RopePrecision",
    "ScoreOrder",
    "TransformerConfig",
]

_CAUSAL_FRAMES = (PromptFrame.gmask_sop, PromptFrame.bos)
_BLANK_FRAMES = (
    PromptFrame.cls_eos,
    PromptFrame.cls_eos_unless_blank,
    PromptFrame.eos_unless_blank,
)
_POSITIVE = (
    "norm_eps",
    "rope_theta",
    "rope_position_scale",
    "attention_scale",
    "residual_scale",
    "init_std",
)


@dataclass(kw_only=True, slots=True)
class TransformerConfig:
    """Shape and algebra of a transformer."""

    vocab_size: int
    """Rows of the embedding, padding rows included."""
    hidden_size: int
    """Width of the residual stream."""
    num_layers: int
    """Number of blocks, the top-query layer not counted."""
    num_heads: int
    """Number of query heads."""
    num_kv_heads: int = 0
    """Number of key/value heads; 0 means as many as query heads."""
    head_dim: int = 0
    """Size of one head; 0 means hidden_size / num_heads."""
    ffn_hidden_size: int = 0
    """Width of the feed-forward network after gating; 0 means 4 * hidden_size."""
    max_position_embeddings: int
    """Longest sequence in tokens; with learned_2d the tables have one row more."""

    norm: Norm = Norm.layernorm
    norm_eps: float = 1e-5
    residual: Residual = Residual.pre
    residual_scale: float = 1.0
    """Alpha of deepnorm, sqrt(2 * num_layers) in the paper; must be 1 otherwise."""

    activation: Activation = Activation.gelu
    gelu_form: GeluForm = GeluForm.tanh
    gate_half: GateHalf = GateHalf.first
    """Which half geglu activates; swiglu always activates the first."""

    position: Position = Position.learned_2d
    rope_layout: RopeLayout = RopeLayout.halves
    rope_theta: float = 10000.0
    rope_position_scale: float = 1.0
    """Positions are divided by this before rotating: 4 in ChatGLM2-6B-32k, whose config.json calls
    it rope_ratio. In ChatGLM3 and GLM-4 rope_ratio multiplies rope_theta instead."""
    rotary_dim: int = 0
    """How many leading dimensions of a head rotate; 0 means all."""

    qkv_layout: QkvLayout = QkvLayout.concatenated
    qkv_bias: bool = True
    dense_bias: bool = True
    """Bias of attention's output projection."""
    mlp_bias: bool = True
    reference_numerics: bool = False
    """Whether to round as the original code does where its order of operations shows in half
    precision (rope_precision, norm_precision, score_order, the quick gelu_form), instead of in the
    better-conditioned order."""
    rope_precision: RopePrecision = RopePrecision.full
    norm_precision: NormPrecision = NormPrecision.model
    score_order: ScoreOrder = ScoreOrder.fused
    attention_scale: float = 1.0
    """PB-relax: scores are computed this many times smaller and restored inside the softmax."""
    layer_number_scaling: bool = False
    """Like attention_scale, with the layer's number 1, 2, ...: GLM-130B, ChatGLM-6B."""

    top_query_layer: bool = False
    """A last block whose queries come from a learned table of positions: CodeGeeX-13B."""
    tie_embeddings: bool = True
    """Whether the head is the embedding."""
    embedding_grad_scale: float = 1.0
    """Embedding-gradient shrink, e * a + detach(e) * (1 - a): GLM-130B trains with a = 0.1."""
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    init_std: float = 0.02
    generation_layout: GenerationLayout = GenerationLayout.blank
    prompt_frame: PromptFrame = PromptFrame.auto

    def __post_init__(self) -> None:
        for field in fields(self):
            setattr(self, field.name, _parse(field.type, field.name, getattr(self, field.name)))
        for name in ("num_kv_heads", "head_dim", "ffn_hidden_size", "rotary_dim"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative")
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "must be positive")
        _require(
            self.max_position_embeddings > 0,
            "max_position_embeddings",
            self.max_position_embeddings,
            "must be positive",
        )
        if self.head_dim == 0:
            _require(
                self.hidden_size % self.num_heads == 0,
                "num_heads",
                self.num_heads,
                f"must divide hidden_size ({self.hidden_size}), or set head_dim",
            )
            self.head_dim = self.hidden_size // self.num_heads
        self.num_kv_heads = self.num_kv_heads or self.num_heads
        self.ffn_hidden_size = self.ffn_hidden_size or 4 * self.hidden_size
        _require(
            self.num_heads % self.num_kv_heads == 0,
            "num_kv_heads",
            self.num_kv_heads,
            f"must divide num_heads ({self.num_heads})",
        )
        self._check_positions()
        self._check_frame()
        self._check_ranges()

    def _check_positions(self) -> None:
        if not self.is_rotary:
            return
        self.rotary_dim = self.rotary_dim or self.head_dim
        _require(
            self.rotary_dim % 2 == 0 and self.rotary_dim <= self.head_dim,
            "rotary_dim",
            self.rotary_dim,
            f"must be even and at most head_dim ({self.head_dim})",
        )
        if self.position == Position.rope_2d:
            _require(
                self.head_dim % 4 == 0 and self.rotary_dim == self.head_dim,
                "rotary_dim",
                self.rotary_dim,
                f"must be head_dim ({self.head_dim}), a multiple of 4, when position is rope_2d",
            )
            _require(
                self.rope_layout == RopeLayout.halves,
                "rope_layout",
                self.rope_layout.value,
                "must be halves when position is rope_2d",
            )

    def _check_frame(self) -> None:
        is_causal = self.generation_layout == GenerationLayout.causal
        if self.prompt_frame == PromptFrame.auto:
            self.prompt_frame = PromptFrame.bare if is_causal else PromptFrame.cls_eos
        _require(
            self.prompt_frame not in (_BLANK_FRAMES if is_causal else _CAUSAL_FRAMES),
            "prompt_frame",
            self.prompt_frame.value,
            f"does not belong to generation_layout {self.generation_layout.value}: choose auto",
        )

    def _check_ranges(self) -> None:
        _require(
            self.activation == Activation.gelu or self.gelu_form != GeluForm.quick,
            "gelu_form",
            self.gelu_form.value,
            f"must be tanh or erf when activation is {self.activation.value}",
        )
        _require(
            self.norm == Norm.layernorm or self.norm_precision == NormPrecision.model,
            "norm_precision",
            self.norm_precision.value,
            f"must be model when norm is {self.norm.value}",
        )
        _require(
            self.residual == Residual.deepnorm or self.residual_scale == 1.0,
            "residual_scale",
            self.residual_scale,
            f"must be 1 when residual is {self.residual.value}; only deepnorm scales it",
        )
        _require(
            self.attention_scale == 1.0 or not self.layer_number_scaling,
            "attention_scale",
            self.attention_scale,
            "must be 1 when layer_number_scaling is on; choose one of the two",
        )
        for name in ("hidden_dropout", "attention_dropout"):
            value = getattr(self, name)
            _require(0.0 <= value < 1.0, name, value, "must be in [0, 1)")
        _require(
            0.0 < self.embedding_grad_scale <= 1.0,
            "embedding_grad_scale",
            self.embedding_grad_scale,
            "must be in (0, 1]",
        )
        for name in _POSITIVE:
            _require(getattr(self, name) > 0, name, getattr(self, name), "must be positive")

    @property
    def num_blocks(self) -> int:
        """Blocks that store keys and values: the layers and, last, the top-query layer."""
        return self.num_layers + int(self.top_query_layer)

    @property
    def has_single_norms(self) -> bool:
        """Whether the norms are fp32 whatever the model's dtype."""
        return self.reference_numerics and self.norm_precision == NormPrecision.single

    @property
    def is_rotary(self) -> bool:
        """Whether queries and keys are rotated by their position."""
        return self.position in (Position.rope, Position.rope_2d)

    @property
    def is_gated(self) -> bool:
        """Whether the first feed-forward projection is doubled."""
        return self.activation != Activation.gelu

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return {
            name: value.value if isinstance(value, Enum) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TransformerConfig":
        """Reads what `to_dict` wrote.

        Raises:
            ValueError: a field is unknown or has a value that is not one of its choices.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(
                f"model config has unknown fields {unknown}: "
                "remove them, or use the version of glm-lab that wrote the file"
            )
        return cls(**values)


def _parse(kind: Any, name: str, value: Any) -> Any:
    """Turns the name of a choice into the choice; other values stay as they are."""
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        return value
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(str(choice.value) for choice in kind)
        raise ValueError(f"model.{name} is {value!r}: choose one of {choices}") from None


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"model.{name} is {value}: it {rule}")
