"""Small things for tests of code models: a tiny model with random weights that fills in."""

from __future__ import annotations

import functools

from codegeex.fim import SENTINELS
from glm_core.model.choices import Activation
from glm_core.model.config import GenerationLayout, Norm, Position, TransformerConfig
from glm_core.model.transformer import Transformer
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer

_SOURCE = '''"""A module that says how a tokenizer of a few hundred pieces sees Python."""

import math


def area(radius: float) -> float:
    """Returns the area of a circle."""
    if radius < 0:
        raise ValueError(f"radius is {radius}: it must not be negative")
    return math.pi * radius**2


class Shape:
    def __init__(self, name, sides=4):
        self.name = name
        self.sides = sides

    def __repr__(self):
        return f"Shape({self.name!r}, {self.sides})"


for number in range(10):
    print(number, area(number), Shape("square"))
'''


@functools.cache
def tiny_code_tokenizer() -> ByteBPETokenizer:
    """Returns a byte-level BPE of about 500 ids with the sentinels."""
    return ByteBPETokenizer.train([_SOURCE] * 3, 512, SENTINELS)


def tiny_code_model(seed: int = 0, context: int = 512) -> tuple[Transformer, ByteBPETokenizer]:
    """Returns a causal model of nano-code's make, two layers wide 32, with random weights."""
    tokenizer = tiny_code_tokenizer()
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        ffn_hidden_size=64,
        max_position_embeddings=context,
        norm=Norm.rmsnorm,
        activation=Activation.swiglu,
        position=Position.rope,
        qkv_bias=False,
        dense_bias=False,
        mlp_bias=False,
        generation_layout=GenerationLayout.causal,
    )
    model = Transformer(config)
    model.init_weights(seed)
    return model.eval(), tokenizer
