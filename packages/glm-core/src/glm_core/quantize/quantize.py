"""Quantizing a model in place."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from glm_core.quantize.layout import Layout, QuantizeConfig, matches
from glm_core.quantize.linear import QuantizedEmbedding, QuantizedLinear
from glm_core.quantize.weight import QuantizedWeight
from glm_kernels import ActivationBits

QUANTIZED_LINEARS = frozenset({"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"})
"""The projections of the blocks, which are quantized unless they are skipped."""
EMBEDDINGS, HEAD = "word_embeddings", "output_layer"


def quantize_(model: nn.Module, config: QuantizeConfig) -> nn.Module:
    """Replaces the projections of a model's blocks, and what else the config says, by quantized
    ones, ready to compute.

    Each float weight is released before the next one is quantized. On the meta device the modules
    are replaced alone, so that quantized weights can be loaded into them.

    Args:
        model: changed in place.
        config: what is quantized, and how.

    Returns:
        The model.

    Raises:
        ValueError: a weight cannot be quantized (names the layer), or a name in `skip` is not in
            the model.
    """
    return replace_(model, layouts_of(model, config))


def layouts_of(model: nn.Module, config: QuantizeConfig) -> dict[str, Layout]:
    """The modules that a config quantizes, by name, each with its layout.

    Raises:
        ValueError: a name in `skip` is not in the model.
    """
    modules = dict(model.named_modules())
    unknown = [
        pattern for pattern in config.skip if not any(matches(name, pattern) for name in modules)
    ]
    if unknown:
        raise ValueError(
            f"skip names modules that the model does not have: {', '.join(sorted(unknown))}"
        )
    chosen = [
        name
        for name, module in modules.items()
        if _is_chosen(name, module, config, is_tied=HEAD not in modules) and not config.skips(name)
    ]
    return dict.fromkeys(chosen, config.layout)


def replace_(model: nn.Module, layouts: Mapping[str, Layout], pack: bool = True) -> nn.Module:
    """Replaces the named modules by quantized ones.

    Args:
        model: changed in place.
        layouts: names of linear layers, or of the word embeddings, each with its layout.
        pack: whether to bring them into the kernels' order.

    Raises:
        ValueError: a weight cannot be quantized; names the layer.
    """
    is_tied = getattr(model, HEAD, None) is None
    for name, layout in layouts.items():
        parent, _, leaf = name.rpartition(".")
        owner = model.get_submodule(parent)
        new: QuantizedWeight
        try:
            module = getattr(owner, leaf)
            if isinstance(module, nn.Embedding):
                new = QuantizedEmbedding.from_embedding(module, layout, is_tied)
            else:
                new = QuantizedLinear.from_linear(module, layout)
            del module
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        setattr(owner, leaf, new.train(model.training))
        if pack:
            new.pack()
    return model


def pack_(model: nn.Module) -> nn.Module:
    """Brings every quantized matrix that has values into the kernels' order, one after the other.

    Returns:
        The model.
    """
    for module in model.modules():
        if isinstance(module, QuantizedWeight):
            module.pack()
    return model


def set_prompt_activation_bits(model: nn.Module, bits: ActivationBits) -> nn.Module:
    """Sets how many bits the compiled kernels round the activations of a prompt to.

    15 is practically exact; 8 reads prompts faster on processors without AMX, and changes what the
    model says a little: `glm quantize --report` measures it. Fewer tokens than `PROMPT_ROWS` at
    once, as when a text is written, always have 15 bits. Other backends do not round.

    Returns:
        The model.

    Raises:
        ValueError: `bits` is neither 15 nor 8, or 8 and no matrix of the model is quantized.
    """
    quantized = [module for module in model.modules() if isinstance(module, QuantizedWeight)]
    check_prompt_activation_bits(bits, bool(quantized))
    for module in quantized:
        module.prompt_activation_bits = bits
    return model


def check_prompt_activation_bits(bits: int, is_quantized: bool) -> None:
    """Refuses what `set_prompt_activation_bits` cannot set.

    Raises:
        ValueError: `bits` is neither 15 nor 8, or 8 for a model without quantized matrices.
    """
    if bits not in (15, 8):
        raise ValueError(f"prompt_activation_bits is {bits}: it can be 15, practically exact, or 8")
    if bits == 8 and not is_quantized:
        raise ValueError(
            "prompt_activation_bits is 8 (--fast-prompts), but no matrix of the model is "
            "quantized, and only products with quantized ones round their inputs: add "
            "quantize=int8 or int4, or leave it out"
        )


def _is_chosen(name: str, module: nn.Module, config: QuantizeConfig, is_tied: bool) -> bool:
    if name == EMBEDDINGS:
        return config.embeddings or (is_tied and config.head)
    if not isinstance(module, nn.Linear):
        return False
    return config.head if name == HEAD else name.rpartition(".")[2] in QUANTIZED_LINEARS
