"""Weights of 8 or 4 bits: how they are stored (rows), computed with (linear), put in (quantize)."""

from glm_core.quantize.linear import RowQuantizedLinear
from glm_core.quantize.quantize import quantize_
from glm_core.quantize.rows import dequantize_rows, pack_int4, quantize_rows, unpack_int4

__all__ = [
    "RowQuantizedLinear",
    "dequantize_rows",
    "pack_int4",
    "quantize_",
    "quantize_rows",
    "unpack_int4",
]
