"""llama.cpp and chatglm.cpp as contenders of `glm bench decode`: how they are installed and
started, and what they cannot run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm_core.bench.contender import Contender
from glm_core.bench.environments import ROOT, Environment
from glm_core.bench.machine import has_amx
from glm_core.model.config import Activation, Norm, Position, RopeLayout, TransformerConfig

LLAMA_CPP, CHATGLM_CPP = "llama.cpp", "chatglm.cpp"
_CHATGLM_CPP = Environment(
    name=CHATGLM_CPP,
    compiled="chatglm-cpp==0.4.2",
    requirements=("numpy",),
    # it asks for nothing beyond AVX2 by itself; its sentencepiece, for a CMake before the 4th
    variables={
        "CMAKE_ARGS": "-DCMAKE_C_FLAGS=-march=native -DCMAKE_CXX_FLAGS=-march=native",
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
    },
)

_AMX_FLAGS = "-fno-tree-dse -fno-dse"
"""GCC 12's header declares the instruction that describes AMX's tiles as if it read 8 of its 64
bytes; GCC drops the stores to the others, and llama.cpp dies in every batch of 2 tokens or more."""


def environment_of(peer: str, with_amx: bool) -> Environment | None:
    """Where a peer is installed; None for those that run in ours.

    Args:
        with_amx: whether the processor's AMX is to be used.
    """
    if peer == CHATGLM_CPP:
        return _CHATGLM_CPP
    if peer != LLAMA_CPP:
        return None
    flags = ""
    if has_amx():
        flags = _AMX_FLAGS if with_amx else "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    return Environment(
        name=LLAMA_CPP if with_amx == has_amx() else f"{LLAMA_CPP}-without-amx",
        compiled="llama-cpp-python==0.3.36",
        requirements=("gguf", "numpy"),
        variables={"CMAKE_ARGS": "-DLLAVA_BUILD=OFF", "CXXFLAGS": flags},
    )


def ggml_contender(job: Mapping[str, Any], config: TransformerConfig) -> Contender:
    """The contender of a job, with the reason where it cannot run."""
    peer = job["contender"]
    environment = environment_of(peer, job["amx"])
    assert environment is not None
    script = "llama_worker.py" if peer == LLAMA_CPP else "chatglm_cpp_worker.py"
    settings = json.dumps(settings_of(config))
    command = [str(environment.python), str(Path(__file__).parent / script), settings]
    reason = unlike_chatglm(config)
    if reason:
        reason = f"its chatglm has no {reason}"
    elif peer == CHATGLM_CPP:
        reason = _beyond_chatglm_cpp(config, job["batch"], job["threads"])
    return Contender(job, command, reason=reason or environment.reason())


def settings_of(config: TransformerConfig) -> dict[str, Any]:
    """What the peers' scripts are told of a model."""
    return {
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
        "folder": str(ROOT / "models"),
    }


def unlike_chatglm(config: TransformerConfig) -> str:
    """What the peers' chatglm architecture does not have of a model; empty when it has all."""
    if config.norm != Norm.rmsnorm:
        return "LayerNorm"
    if config.activation != Activation.swiglu:
        return f"{config.activation.value} activation"
    if config.position != Position.rope or config.rope_layout != RopeLayout.interleaved:
        return "other positions than interleaved RoPE"
    return ""


def _beyond_chatglm_cpp(config: TransformerConfig, batch: int, threads: int) -> str:
    cores = os.cpu_count() or 1
    own_choice = cores if cores <= 4 else cores // 2
    if batch > 1:
        return "it computes one text at a time"
    if threads != own_choice:
        return f"it takes {own_choice} threads here, whatever one asks for, not {threads}"
    if config.rotary_dim * 2 != config.head_dim:
        return "it rotates half of each head, no other part"
    if any(columns % 32 for columns in (config.hidden_size, config.ffn_hidden_size)):
        return "its Q4_0 and Q8_0 need matrices of columns in groups of 32"
    return ""
