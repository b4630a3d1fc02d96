"""Tiny members of the family beside their transcriptions: models, masks, batches, prefixes."""

import math

import numpy as np
import torch

from glm_core.attention import LeftPadded, Packed, PrefixLM, RightPadded
from glm_core.testing import randomize, tiny_model
from glm_core.tune.prefix import PrefixEncoder, prefix_width

from .numpy_oracles import (
    chatglm2_logits,
    chatglm_6b_logits,
    codegeex_logits,
    glm_130b_logits,
    glm_logits,
)

LAYERS, HEADS, HEAD_DIM, VOCAB, LENGTH = 2, 4, 16, 53, 11

# Preset, oracle, what the tiny config changes.
MODELS = {
    "glm": ("glm-base", glm_logits, {}),
    "glm_130b": ("glm-130b", glm_130b_logits, {"rotary_dim": 16}),
    "chatglm_6b": (
        "chatglm-6b",
        chatglm_6b_logits,
        {"rotary_dim": 16, "residual_scale": math.sqrt(56)},
    ),
    "chatglm2": ("chatglm2-6b", chatglm2_logits, {"rotary_dim": 8, "num_kv_heads": 2}),
    "codegeex": ("codegeex-13b", codegeex_logits, {}),
}


def prefix_sees(prefix):
    return lambda q, k: k <= q or k < prefix


def rows_of(mask):
    """Each row's [start, stop) and rule inside it, written down by hand."""
    return {
        "prefix": [[(0, 11, prefix_sees(4))], [(0, 11, prefix_sees(9))]],
        "left": [[(0, 11, prefix_sees(5))], [(4, 11, prefix_sees(3))]],
        "right": [[(0, 7, prefix_sees(2))], [(0, 11, prefix_sees(6))]],
        "packed": [
            [(0, 4, prefix_sees(2)), (4, 11, prefix_sees(5))],
            [(0, 3, prefix_sees(1)), (3, 5, prefix_sees(0)), (5, 9, prefix_sees(3))],
        ],
    }[mask]


MASKS = {
    "prefix": PrefixLM((4, 9)),
    "left": LeftPadded(PrefixLM((5, 3)), (0, 4)),
    "right": RightPadded(PrefixLM((2, 6)), (7, 11)),
    "packed": Packed((((4, 2), (7, 5)), ((3, 1), (2, 0), (4, 3)))),
}


def visibility(mask):
    """bool [B, T, S], and bool [B, T] for the columns that hold a token."""
    visible = np.zeros((2, LENGTH, LENGTH), dtype=bool)
    real = np.zeros((2, LENGTH), dtype=bool)
    for row, samples in enumerate(rows_of(mask)):
        for start, stop, rule in samples:
            real[row, start:stop] = True
            for q in range(start, stop):
                for k in range(start, stop):
                    visible[row, q, k] = rule(q - start, k - start)
    visible |= np.eye(LENGTH, dtype=bool) & ~real[:, None]
    return visible, real


def setup(name, backend="auto", **changes):
    """Returns our model, its weights in float64, and the oracle with its sizes filled in."""
    family, oracle, tiny = MODELS[name]
    shape = {"num_layers": LAYERS, "num_heads": HEADS, "num_kv_heads": HEADS, "vocab_size": VOCAB}
    shape |= {"hidden_size": HEADS * HEAD_DIM, "head_dim": HEAD_DIM, "ffn_hidden_size": 37}
    shape |= tiny | changes
    model = tiny_model(family, seed=3, attention_backend=backend, **shape)
    return model, weights_of(model), oracle


def weights_of(model):
    return {key: value.double().numpy() for key, value in model.state_dict().items()}


PROJECTIONS = {
    "table": {},
    "chatglm_projection": {"projection": True},
    "chatglm2_projection": {"projection": True, "projection_input_size": prefix_width},
}


def add_prefix(model, projection, count=3):
    """Gives the model a prefix that matters; its weights then include the prefix's."""
    sizes = {
        key: value(model.config) if callable(value) else value
        for key, value in PROJECTIONS[projection].items()
    }
    model.prefix = PrefixEncoder(model.config, count, **sizes).eval()
    randomize(model.prefix, seed=8)
    return weights_of(model)


def batch():
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, VOCAB, (2, LENGTH), generator=generator)
    positions = torch.randint(0, 48, (2, 2, LENGTH), generator=generator)
    labels = torch.randint(0, VOCAB, (2, LENGTH), generator=generator)
    return ids, positions, labels
