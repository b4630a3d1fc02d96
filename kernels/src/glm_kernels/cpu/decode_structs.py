"""The structs of native/decode_abi.h."""

from __future__ import annotations

import ctypes

POINTER, INT64, INT32, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float


class Matrix(ctypes.Structure):
    _fields_ = (
        *((name, POINTER) for name in ("values", "scales", "zeros", "bias")),
        *((name, INT64) for name in ("in_features", "out_features")),
        *((name, INT32) for name in ("bits", "group", "dtype", "is_stored")),
    )


class Norm(ctypes.Structure):
    _fields_ = (("weight", POINTER), ("bias", POINTER))


class Layer(ctypes.Structure):
    _fields_ = (
        *((f"{name}_norm", Norm) for name in ("input", "attention_out", "post_attention")),
        ("mlp_out_norm", Norm),
        *((name, Matrix) for name in ("query_key_value", "dense", "up", "down")),
    )


_SIZES = ("num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_dim", "ffn_hidden_size")
_KINDS = ("norm", "activation", "gate", "rope", "residual", "interleaved_heads", "top_query")


class Model(ctypes.Structure):
    _fields_ = (
        ("layers", POINTER),
        ("final_norm", Norm),
        ("head", Matrix),
        ("words", Matrix),
        ("places", Matrix * 2),
        ("queries", Matrix),
        ("cosines", POINTER),
        ("sines", POINTER),
        *((name, INT64) for name in (*_SIZES, "pairs")),
        *((name, FLOAT) for name in ("eps", "score_scale", "residual_scale")),
        *((name, INT32) for name in _KINDS),
    )


class Step(ctypes.Structure):
    _fields_ = (
        *((name, POINTER) for name in ("tokens", "logits", "keys", "values")),
        *((name, POINTER) for name in ("positions", "pages", "lengths", "visible", "first")),
        ("workspace", POINTER),
        *((name, INT64) for name in ("rows", "logit_rows", "front")),
        *((name, INT32) for name in ("cache_dtype", "threads")),
    )
