"""Our model in llama.cpp's layout computes the same: against its arithmetic written in numpy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from codegeex.bench.llama_export import ARRAYS, SETTINGS, export, unlike_llama
from codegeex.testing import tiny_code_model
from glm_core.model import Transformer
from glm_core.model.config import Activation, Norm, RopeLayout
from glm_core.testing import assert_relative

Array = NDArray[np.float32]


def _norm(x: Array, weight: Array, eps: float) -> Array:
    scaled: Array = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight
    return scaled


def _rope(x: Array, theta: float) -> Array:
    """llama.cpp's: pairs of neighbours turn together. x: [T, N, H]."""
    size = x.shape[-1]
    angles = np.arange(len(x))[:, None] * theta ** (-np.arange(0, size, 2) / size)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out


def _logits(folder: Path, ids: list[int]) -> Array:
    w, s = np.load(folder / ARRAYS), json.loads((folder / SETTINGS).read_text())
    heads, kv, size = s["num_heads"], s["num_kv_heads"], s["head_dim"]
    x = w["token_embd.weight"][ids]
    unseen = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for layer in range(s["num_layers"]):
        b = f"blk.{layer}."
        h = _norm(x, w[f"{b}attn_norm.weight"], s["norm_eps"])
        q, k, v = (
            (h @ w[f"{b}attn_{name}.weight"].T).reshape(len(ids), count, size)
            for name, count in (("q", heads), ("k", kv), ("v", kv))
        )
        q, k = _rope(q, s["rope_theta"]), _rope(k, s["rope_theta"])
        k, v = (np.repeat(one, heads // kv, axis=1) for one in (k, v))
        scores = np.einsum("tnh,snh->nts", q, k) / np.sqrt(size) + unseen
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + np.einsum("nts,snh->tnh", weights, v).reshape(len(ids), -1) @ (
            w[f"{b}attn_output.weight"].T
        )
        h = _norm(x, w[f"{b}ffn_norm.weight"], s["norm_eps"])
        gate = h @ w[f"{b}ffn_gate.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (h @ w[f"{b}ffn_up.weight"].T)
        x = x + inner @ w[f"{b}ffn_down.weight"].T
    head = w["output.weight"] if "output.weight" in w else w["token_embd.weight"]
    logits: Array = _norm(x, w["output_norm.weight"], s["norm_eps"]) @ head.T
    return logits


@pytest.mark.parametrize("layout", list(RopeLayout))
def test_exported_model_computes_the_same(tmp_path: Path, layout: RopeLayout) -> None:
    tiny, tokenizer = tiny_code_model()
    model = Transformer(replace(tiny.config, rope_layout=layout, init_std=0.2))
    model.init_weights(3)
    export(model, tokenizer, tmp_path)
    ids = tokenizer.encode("def area(radius):\n    return math.pi")
    with torch.no_grad():
        expected = model.logits(model(torch.tensor([ids])))[0]
    assert_relative(_logits(tmp_path, ids), expected, 2e-5)


def test_what_llama_does_not_have_is_named() -> None:
    model, tokenizer = tiny_code_model()
    assert unlike_llama(model.config, tokenizer) == ""
    for fields, reason in (
        ({"norm": Norm.layernorm}, "norms of this kind"),
        ({"activation": Activation.geglu}, "geglu activation"),
        ({"qkv_bias": True}, "biases"),
    ):
        assert unlike_llama(replace(model.config, **fields), tokenizer) == reason
