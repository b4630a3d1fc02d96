"""Weights of 8 or 4 bits: how they are stored (layout, rows, matrix), computed with (weight,
product, linear), put into a model (quantize), and chosen by what a text asks for (gptq)."""

from glm_core.quantize.layout import Layout, QuantizeConfig
from glm_core.quantize.linear import QuantizedEmbedding, QuantizedLinear
from glm_core.quantize.matrix import QuantizedMatrix, quantize_matrix
from glm_core.quantize.quantize import pack_, quantize_, set_prompt_activation_bits
from glm_core.quantize.rows import dequantize_rows, pack_int4, quantize_rows, unpack_int4

__all__ = [
    "Layout",
    "QuantizeConfig",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "QuantizedMatrix",
    "dequantize_rows",
    "pack_",
    "pack_int4",
    "quantize_",
    "quantize_matrix",
    "quantize_rows",
    "set_prompt_activation_bits",
    "unpack_int4",
]
