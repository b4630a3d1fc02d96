"""Quantizing a model in place: the projections of its blocks, as the released weights have it."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from glm_core.quantize.linear import RowQuantizedLinear

QUANTIZED_LINEARS = frozenset({"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"})
"""What is quantized. Embeddings, norms, biases and the head stay as they are."""


def quantize_(model: nn.Module, bits: int, skip: Collection[str] = ()) -> nn.Module:
    """Replaces the projections of a model's blocks by quantized ones.

    Each float weight is released before the next one is quantized. On the meta device the modules
    are replaced alone, so that quantized weights can be loaded into them.

    Args:
        model: changed in place.
        bits: 8 or 4.
        skip: names of modules to leave, with all that is below them: "layers.0".

    Returns:
        The model.

    Raises:
        ValueError: bits is neither 8 nor 4, a layer has an odd number of columns with 4 bits, or a
            name in `skip` is not in the model.
    """
    modules = dict(model.named_modules())
    unknown = sorted(set(skip) - modules.keys())
    if unknown:
        raise ValueError(f"skip names modules that the model does not have: {', '.join(unknown)}")
    linears = [name for name, module in modules.items() if _is_quantized(name, module, skip)]
    del modules
    for name in linears:
        parent, _, leaf = name.rpartition(".")
        owner = model.get_submodule(parent)
        try:
            setattr(owner, leaf, RowQuantizedLinear.from_linear(getattr(owner, leaf), bits))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return model


def _is_quantized(name: str, module: nn.Module, skip: Collection[str]) -> bool:
    if not isinstance(module, nn.Linear) or name.rpartition(".")[2] not in QUANTIZED_LINEARS:
        return False
    return not any(name == left or name.startswith(f"{left}.") for left in skip)
