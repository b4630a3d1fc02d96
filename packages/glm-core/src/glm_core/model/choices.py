"""The choices that tell the members of the family apart; presets.py says who takes which."""

from enum import StrEnum


class Norm(StrEnum):
    """Which normalisation."""

    layernorm = "layernorm"
    rmsnorm = "rmsnorm"


class Residual(StrEnum):
    """How a sub-layer f joins the residual stream x."""

    pre = "pre"
    """x + f(norm(x)): GLM, ChatGLM2/3, GLM-4."""
    deepnorm = "deepnorm"
    """residual_scale * norm(x) + f(norm(x)): GLM-130B and ChatGLM-6B scale the normalised input."""
    sandwich = "sandwich"
    """x + norm'(f(norm(x))): GLM-4-0414."""


class Activation(StrEnum):
    """The non-linearity of the feed-forward network."""

    gelu = "gelu"
    geglu = "geglu"
    swiglu = "swiglu"


class GeluForm(StrEnum):
    """Which GELU: tanh and erf differ by up to 5e-4, quick from both by up to 2e-2."""

    tanh = "tanh"
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): GLM, ChatGLM-6B."""
    erf = "erf"
    """x times the normal distribution function: GLM-130B."""
    quick = "quick"
    """x sigmoid(1.702 x): CodeGeeX-13B, whose code rounds on the way, as `reference_numerics`
    does."""


class GateHalf(StrEnum):
    """Which half of the doubled projection passes through the activation."""

    first = "first"
    second = "second"


class Position(StrEnum):
    """How columns learn where they are."""

    learned_2d = "learned_2d"
    """Two learned tables, for the position and the block position, added to the embedding: GLM."""
    learned = "learned"
    """One learned table for the position, added to the embedding: CodeGeeX-13B."""
    rope = "rope"
    """Rotary embedding of the position: GLM-130B, ChatGLM2/3, GLM-4."""
    rope_2d = "rope_2d"
    """Half the head rotated by the position, half by the block position: ChatGLM-6B."""


class RopeLayout(StrEnum):
    """Which two of a head's dimensions rotate together."""

    halves = "halves"
    """i with i + rotary_dim / 2: GPT-NeoX, GLM-130B, LLaMA."""
    interleaved = "interleaved"
    """2i with 2i + 1: ChatGLM2/3, GLM-4."""


class RopePrecision(StrEnum):
    """Where the original code rounds the rotary tables; `reference_numerics` turns it on."""

    full = "full"
    """Nowhere: the tables are fp32."""
    tables = "tables"
    """The tables have the model's dtype: GLM-130B, ChatGLM2/3, GLM-4."""
    frequencies = "frequencies"
    """Frequencies are fp16, and so are angles and tables of a half-precision model: ChatGLM-6B."""


class NormPrecision(StrEnum):
    """What the original code keeps its norms in; `reference_numerics` turns it on."""

    model = "model"
    """The model's dtype."""
    single = "single"
    """fp32, input and weights, and the output rounded: CodeGeeX-13B in Megatron, without its option
    --ln-fp16."""


class ScoreOrder(StrEnum):
    """How the original code scales and masks scores; `reference_numerics` turns it on.

    The values name the classes in glm_core.attention.reference.
    """

    fused = "fused"
    """As the attention backends do, softmax in fp32: ChatGLM2/3, GLM-4, LLaMA."""
    fill_before_coefficient = "fill_before_coefficient"
    """-10000 where hidden, before the coefficient multiplies: GLM-130B, ChatGLM-6B."""
    multiply_mask = "multiply_mask"
    """scores * mask - 65504 * (1 - mask), softmax in the model's dtype: GLM."""
    scale_product = "scale_product"
    """The product is scaled in the model's dtype, then - 10000 where hidden: CodeGeeX-13B."""


class QkvLayout(StrEnum):
    """How the rows of the fused query-key-value projection are ordered."""

    concatenated = "concatenated"
    """[all queries; all keys; all values]: GLM, and ChatGLM2/3 with its two key/value groups."""
    interleaved = "interleaved"
    """[queries, key, value] of one key/value group after the other: GLM-130B and ChatGLM-6B."""


class PromptFrame(StrEnum):
    """Which special tokens stand around the text of a prompt."""

    auto = "auto"
    """cls_eos for a model that fills blanks, bare for a causal one."""
    cls_eos = "cls_eos"
    """[CLS] text <eos>, without the end after a last [gMASK]: what `glm train` teaches."""
    cls_eos_unless_blank = "cls_eos_unless_blank"
    """[CLS] text <eos>, without the end when a blank of any kind is last: GLM."""
    eos_unless_blank = "eos_unless_blank"
    """text <eos>, without the end when a blank of any kind is last: GLM-130B."""
    bare = "bare"
    """The text alone: ChatGLM-6B (which ends it with [gMASK] like any prompt), CodeGeeX-13B."""
    gmask_sop = "gmask_sop"
    """[gMASK] <sop> text: ChatGLM2/3, CodeGeeX2, GLM-4."""
    bos = "bos"
    """<s> text: LLaMA, Vicuna."""


class GenerationLayout(StrEnum):
    """Where the model expects the text it writes."""

    blank = "blank"
    """Every blank: position of its mask token, block positions 1, 2, ...: GLM, ChatGLM-6B."""
    blank_1d = "blank_1d"
    """[MASK], [sMASK]: position of the mask token. [gMASK]: positions go on: GLM-130B."""
    causal = "causal"
    """No blanks; positions go on: ChatGLM2/3, GLM-4, LLaMA."""
