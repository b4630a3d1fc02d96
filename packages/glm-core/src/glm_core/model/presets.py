"""The sizes of the family as published. `preset("glm-130b")` returns a fresh config."""

import math
from collections.abc import Callable
from dataclasses import replace

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


def _glm(
    num_layers: int, hidden_size: int, num_heads: int, vocab_size: int, context: int
) -> TransformerConfig:
    """GLM. Source: arXiv 2103.10360. The vocabulary is padded to a multiple of 128."""
    return TransformerConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        max_position_embeddings=context,
        score_order=ScoreOrder.multiply_mask,
        prompt_frame=PromptFrame.cls_eos_unless_blank,
    )


def _glm_130b() -> TransformerConfig:
    """GLM-130B. Source: arXiv 2210.02414, section 2.1 and table 11."""
    return TransformerConfig(
        vocab_size=150528,
        hidden_size=12288,
        num_layers=70,
        num_heads=96,
        ffn_hidden_size=32768,
        max_position_embeddings=2048,
        residual=Residual.deepnorm,
        residual_scale=math.sqrt(2 * 70),
        activation=Activation.geglu,
        gelu_form=GeluForm.erf,
        gate_half=GateHalf.second,
        position=Position.rope,
        qkv_layout=QkvLayout.interleaved,
        layer_number_scaling=True,
        rope_precision=RopePrecision.tables,
        score_order=ScoreOrder.fill_before_coefficient,
        embedding_grad_scale=0.1,
        init_std=0.0052,
        generation_layout=GenerationLayout.blank_1d,
        prompt_frame=PromptFrame.eos_unless_blank,
    )


def _chatglm_6b(vocab_size: int) -> TransformerConfig:
    """ChatGLM-6B: GLM-130B's block without gate, two-dimensional RoPE."""
    return TransformerConfig(
        vocab_size=vocab_size,
        hidden_size=4096,
        num_layers=28,
        num_heads=32,
        max_position_embeddings=2048,
        residual=Residual.deepnorm,
        residual_scale=math.sqrt(2 * 28),
        position=Position.rope_2d,
        qkv_layout=QkvLayout.interleaved,
        layer_number_scaling=True,
        rope_precision=RopePrecision.frequencies,
        score_order=ScoreOrder.fill_before_coefficient,
        prompt_frame=PromptFrame.bare,
    )


def _chatglm2(
    num_layers: int, vocab_size: int, context: int, norm_eps: float, rope_ratio: float = 1.0
) -> TransformerConfig:
    """ChatGLM2 and its successors: causal, RMSNorm, SwiGLU, two key/value heads, half-head RoPE."""
    return TransformerConfig(
        vocab_size=vocab_size,
        hidden_size=4096,
        num_layers=num_layers,
        num_heads=32,
        num_kv_heads=2,
        ffn_hidden_size=13696,
        max_position_embeddings=context,
        norm=Norm.rmsnorm,
        norm_eps=norm_eps,
        activation=Activation.swiglu,
        position=Position.rope,
        rope_layout=RopeLayout.interleaved,
        rope_theta=10000.0 * rope_ratio,
        rotary_dim=64,
        dense_bias=False,
        mlp_bias=False,
        rope_precision=RopePrecision.tables,
        tie_embeddings=False,
        generation_layout=GenerationLayout.causal,
        prompt_frame=PromptFrame.gmask_sop,
    )


def _chatglm2_32k() -> TransformerConfig:
    """ChatGLM2-6B-32k reads 32k positions as 8k: its rope_ratio divides them."""
    return replace(_chatglm2(28, 65024, 32768, 1e-5), rope_position_scale=4.0)


def _glm4(context: int, rope_ratio: float) -> TransformerConfig:
    """GLM-4-9B; the chat models' longer contexts come with a larger base of the frequencies."""
    return _chatglm2(40, 151552, context, 1.5625e-7, rope_ratio)


def _glm4_0414() -> TransformerConfig:
    """GLM-4-9B-0414: a norm behind each sub-layer too."""
    return replace(_chatglm2(40, 151552, 32768, 1e-5), residual=Residual.sandwich)


def _llama_7b(context: int, norm_eps: float) -> TransformerConfig:
    """LLaMA-7B, and Vicuna-7B on it: the language half of CogVLM. Source: arXiv 2302.13971."""
    return TransformerConfig(
        vocab_size=32000,
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        ffn_hidden_size=11008,
        max_position_embeddings=context,
        norm=Norm.rmsnorm,
        norm_eps=norm_eps,
        activation=Activation.swiglu,
        position=Position.rope,
        qkv_bias=False,
        dense_bias=False,
        mlp_bias=False,
        tie_embeddings=False,
        generation_layout=GenerationLayout.causal,
        prompt_frame=PromptFrame.bos,
    )


def _codegeex_13b() -> TransformerConfig:
    """CodeGeeX-13B: 39 blocks and the top-query layer. Source: arXiv 2303.17568, section 2."""
    return TransformerConfig(
        vocab_size=52224,
        hidden_size=5120,
        num_layers=39,
        num_heads=40,
        max_position_embeddings=2048,
        gelu_form=GeluForm.quick,
        position=Position.learned,
        top_query_layer=True,
        score_order=ScoreOrder.scale_product,
        generation_layout=GenerationLayout.causal,
    )


_WORDPIECE, _GPT2, _CHINESE = 30592, 50304, 50048

PRESETS: dict[str, Callable[[], TransformerConfig]] = {
    "glm-base": lambda: _glm(12, 768, 12, _WORDPIECE, 512),
    "glm-large": lambda: _glm(24, 1024, 16, _WORDPIECE, 512),
    "glm-410m": lambda: _glm(30, 1024, 16, _WORDPIECE, 512),
    "glm-515m": lambda: _glm(30, 1152, 18, _WORDPIECE, 512),
    "glm-roberta-large": lambda: _glm(24, 1024, 16, _GPT2, 512),
    "glm-2b": lambda: _glm(36, 2048, 32, _GPT2, 1024),
    "glm-10b": lambda: _glm(48, 4096, 64, _GPT2, 1024),
    "glm-large-zh": lambda: _glm(24, 1024, 16, _CHINESE, 1024),
    "glm-10b-zh": lambda: _glm(48, 4096, 64, _CHINESE, 1024),
    "glm-130b": _glm_130b,
    "chatglm-6b": lambda: _chatglm_6b(130528),
    "chatglm-6b-v0": lambda: _chatglm_6b(150528),
    "chatglm2-6b": lambda: _chatglm2(28, 65024, 32768, 1e-5),
    "chatglm2-6b-32k": _chatglm2_32k,
    "chatglm3-6b": lambda: _chatglm2(28, 65024, 32768, 1e-5),
    "chatglm3-6b-32k": lambda: _chatglm2(28, 65024, 32768, 1e-5, rope_ratio=50),
    "codegeex2-6b": lambda: _chatglm2(28, 65024, 8192, 1e-5),
    "glm-4-9b": lambda: _glm4(8192, rope_ratio=1),
    "glm-4-9b-chat": lambda: _glm4(131072, rope_ratio=500),
    "glm-4-9b-chat-1m": lambda: replace(_glm4(1048576, rope_ratio=10000), num_kv_heads=4),
    "codegeex4-9b": lambda: _glm4(131072, rope_ratio=500),
    "glm-4-9b-0414": _glm4_0414,
    "llama-7b": lambda: _llama_7b(2048, 1e-6),
    "vicuna-7b": lambda: _llama_7b(2048, 1e-6),
    "vicuna-7b-v1.5": lambda: _llama_7b(4096, 1e-5),
    "codegeex-13b": _codegeex_13b,
}


def preset(name: str) -> TransformerConfig:
    """Returns the config of a published model.

    Raises:
        ValueError: no preset has this name.
    """
    if name not in PRESETS:
        raise ValueError(f"model preset {name!r} is unknown: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
