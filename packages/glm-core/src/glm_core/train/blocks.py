"""Options applied from outside to a model's blocks: compilation and recomputation."""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks_of(model: nn.Module) -> nn.ModuleList | None:
    """The model's repeated blocks, if it offers them as `layers`."""
    layers = getattr(model, "layers", None)
    return layers if isinstance(layers, nn.ModuleList) else None


def compile_blocks(model: nn.Module) -> None:
    """Compile each block in place (one compilation serves all, as they have the same code).

    A model without `layers` is compiled whole. Parameter names do not change.
    """
    for module in blocks_of(model) or [model]:
        # forward rather than module.compile(): recomputation can then wrap the compiled code,
        # where compiling through torch.utils.checkpoint falls back to eager
        module.forward = torch.compile(module.forward)


def recompute_blocks(model: nn.Module) -> None:
    """Recompute each block's activations in the backward; parameter names do not change.

    Raises:
        ValueError: if the model offers no `layers`.
    """
    blocks = blocks_of(model)
    if blocks is None:
        raise ValueError(
            f"trainer.activation_checkpointing is on, but {type(model).__name__} has no `layers`"
            " (nn.ModuleList) to recompute; turn it off"
        )
    for block in blocks:
        # non-reentrant: works under torch.compile, with keyword arguments, and without gradients
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
