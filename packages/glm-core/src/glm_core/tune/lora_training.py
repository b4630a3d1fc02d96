"""LoRA while it is trained: low-rank additions beside frozen linear layers.

`add_lora` puts a pair of matrices beside every linear layer of the blocks and freezes all else;
`save_lora` writes what PEFT and the engine read; `merge_lora` adds the product to the weights.

Source: arXiv 2106.09685, section 4.1: h = W x + alpha / r * B A x, B = 0 at the beginning.

Letters: R rank, I columns of a weight (inputs), O rows (outputs).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from glm_core.checkpoint.files import write_json, write_safetensors
from glm_core.model.transformer import Transformer
from glm_core.tune.lora import CONFIG, WEIGHTS

_A, _B = "lora_A", "lora_B"


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """How much is added. Hydra reads this dataclass."""

    rank: int = 0
    """Of the matrices that are added; 0 trains all weights instead."""
    alpha: float = 16.0
    """The product of the matrices is multiplied by alpha / rank."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"lora.rank is {self.rank}: it must be at least 0; 0 adds nothing")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"lora.alpha is {self.alpha}: it must be above 0, for example 16")


def add_lora(model: Transformer, config: LoraConfig, seed: int) -> None:
    """Freezes a model and puts trainable matrices beside the linear layers of its blocks.

    Raises:
        ValueError: the rank is 0, or the model is quantized and has no such layers.
    """
    if config.rank == 0:
        raise ValueError("lora.rank is 0: it must be at least 1 to add anything")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    scale = config.alpha / config.rank
    found = False
    for layer in _linears(model).values():
        found = True
        bound = 1 / math.sqrt(layer.in_features)
        a_RI = torch.empty(config.rank, layer.in_features)
        a_RI.uniform_(-bound, bound, generator=generator)
        b_OR = torch.zeros(layer.out_features, config.rank)
        device = layer.weight.device
        layer.register_parameter(_A, nn.Parameter(a_RI.to(device)))
        layer.register_parameter(_B, nn.Parameter(b_OR.to(device)))
        layer.register_forward_hook(_Addition(scale))
    if not found:
        raise ValueError(
            "the model has no linear layers to add to: load it with its weights as numbers "
            "(quantize=none)"
        )


def save_lora(model: Transformer, folder: Path | str, config: LoraConfig) -> None:
    """Writes the matrices beside a model as PEFT does, under the names of our own format."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, layer in _with_lora(model):
        for kind in (_A, _B):
            matrix = layer.get_parameter(kind).detach().float().cpu().contiguous()
            tensors[f"base_model.model.{name}.{kind}.weight"] = matrix
    targets = sorted({name.rpartition(".")[2] for name, _ in _with_lora(model)})
    write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": targets,
    }
    write_json(folder / CONFIG, settings)


@torch.no_grad()
def merge_lora(model: Transformer, config: LoraConfig) -> None:
    """Adds the matrices to the weights they stand beside, and takes them away."""
    for _, layer in list(_with_lora(model)):
        a_RI, b_OR = layer.get_parameter(_A), layer.get_parameter(_B)
        layer.weight += (config.alpha / config.rank * (b_OR @ a_RI)).to(layer.weight.dtype)
        for kind in (_A, _B):
            delattr(layer, kind)
        for handle, hook in list(layer._forward_hooks.items()):
            if isinstance(hook, _Addition):
                del layer._forward_hooks[handle]


class _Addition:
    """The hook that adds what a layer's matrices give."""

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        a_RI, b_OR = layer.get_parameter(_A), layer.get_parameter(_B)
        low = nn.functional.linear(inputs[0], a_RI.to(inputs[0].dtype))
        return out + self._scale * nn.functional.linear(low, b_OR.to(low.dtype))


def _linears(model: Transformer) -> dict[str, nn.Linear]:
    """The linear layers of a model's blocks, by name."""
    found = {
        f"layers.{name}": layer
        for name, layer in model.layers.named_modules()
        if isinstance(layer, nn.Linear)
    }
    return found


def _with_lora(model: Transformer) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, layer) for name, layer in _linears(model).items() if hasattr(layer, _A))
