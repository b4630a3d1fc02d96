"""Models with random weights in little time, for benchmarks: quantized ones are made as packed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glm_core.model import Transformer, TransformerConfig
from glm_core.quantize import Layout, QuantizedEmbedding
from glm_core.quantize.matrix import QuantizedMatrix
from glm_core.quantize.weight import QuantizedWeight, has_kernel
from glm_kernels import PackedWeight
from glm_kernels.memory import empty_on_huge_pages
from glm_kernels.weight_only import BLOCK, UNIT

NOISE = torch.randint(0, 256, (1 << 24,), dtype=torch.uint8)


def random_model(config: TransformerConfig) -> Transformer:
    """A model in bf16 whose weights are still to come."""
    with torch.device("meta"):
        return Transformer(config).bfloat16().eval()


def fill_(model: nn.Module) -> None:
    """Gives everything on the meta device memory, quantized matrices random levels."""
    noise = torch.randn(1 << 20) * 0.02
    for module in model.modules():
        if isinstance(module, QuantizedWeight):
            fill_quantized(module)
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                value = torch.empty(parameter.shape, dtype=parameter.dtype)
                for part in torch.split(value.view(-1), noise.numel()):
                    part.copy_(noise[: part.numel()])
                setattr(module, name, nn.Parameter(value, requires_grad=False))


def fill_quantized(module: QuantizedWeight) -> None:
    """Random levels and one scale; what multiplies is made in the kernels' order, because bringing
    6 B of levels into it takes minutes."""
    (rows, columns), layout = module._size, module.layout
    scale = 0.1 / 2**layout.bits
    if isinstance(module, QuantizedEmbedding):
        module.like = torch.empty(0, dtype=module.like.dtype)
    if has_kernel(torch.device("cpu")) and getattr(module, "is_head", True):
        module.weight = module.weight_scale = None
        module._set_packed(random_packed(rows, columns, layout, scale))
        return
    levels = random_bytes((rows, columns * layout.bits // 8), torch.int8)
    scales = torch.full(layout.kinds(rows, columns)["_scale"][1], scale, dtype=torch.float16)
    module.set_matrix(QuantizedMatrix(levels, scales, None, layout))


def random_packed(rows: int, columns: int, layout: Layout, scale: float) -> PackedWeight:
    """A packed weight of random levels."""
    blocks, units = -(-rows // BLOCK), -(-columns // UNIT)
    levels = random_bytes((blocks, units * UNIT * BLOCK * layout.bits // 8), torch.uint8)
    shape = (blocks, layout.groups(columns), BLOCK)
    return PackedWeight(
        levels=levels,
        scales=empty_on_huge_pages(shape, torch.float16).fill_(scale),
        zeros=None,
        out_features=rows,
        in_features=columns,
        bits=layout.bits,
        group=layout.group or None,
    )


def random_bytes(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Bytes of all values, the same ones again after a while."""
    out = empty_on_huge_pages(shape, dtype)
    for part in torch.split(out.view(-1), NOISE.numel()):
        part.copy_(NOISE[: part.numel()].view(dtype))
    return out
