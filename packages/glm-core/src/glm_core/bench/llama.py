"""llama.cpp as a contender of `glm bench decode`: where it is, and what it can run.

It lives in a throw-away environment, because this repository needs nothing of it:

    python -m venv .bench/llama.cpp
    .bench/llama.cpp/bin/pip install cmake ninja gguf numpy
    .bench/llama.cpp/bin/pip install --no-binary llama-cpp-python llama-cpp-python

Its processor's own instructions are used only when it is built where it runs, hence --no-binary.
"""

from __future__ import annotations

import json
from pathlib import Path

from glm_core.model.config import Activation, Norm, Position, RopeLayout, TransformerConfig

LLAMA_CPP = "llama.cpp"
ENVIRONMENT = Path(".bench") / LLAMA_CPP
_SCRIPT = Path(__file__).parent / "llama_worker.py"


def llama_command(config: TransformerConfig) -> tuple[list[str] | None, str]:
    """Returns the command of the contender's process, to be followed by the job, and why it cannot
    run (empty when it can)."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        return None, f"{python} is not there; glm_core/bench/llama.py says how to install it"
    reason = _unlike_chatglm(config)
    if reason:
        return None, f"llama.cpp's chatglm has no {reason}"
    settings = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "ffn_hidden_size": config.ffn_hidden_size,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "num_kv_heads": config.num_kv_heads,
        "rotary_dim": config.rotary_dim,
        "rope_theta": config.rope_theta,
        "norm_eps": config.norm_eps,
        "tie_embeddings": config.tie_embeddings,
        "qkv_bias": config.qkv_bias,
        "folder": str(ENVIRONMENT / "models"),
    }
    return [str(python), str(_SCRIPT), json.dumps(settings)], ""


def _unlike_chatglm(config: TransformerConfig) -> str:
    if config.norm != Norm.rmsnorm:
        return "LayerNorm"
    if config.activation != Activation.swiglu:
        return f"{config.activation.value} activation"
    if config.position != Position.rope or config.rope_layout != RopeLayout.interleaved:
        return "other positions than interleaved RoPE"
    return ""
