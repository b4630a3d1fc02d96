"""LoRA adapters of random numbers, in the folders that PEFT writes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
"""A, [rank, inputs], and B, [outputs, rank], of a module."""


def write_lora(
    folder: Path, sizes: Mapping[str, tuple[int, int, int]], seed: int = 0, **config: Any
) -> dict[str, Pair]:
    """Writes an adapter of r = 4 and alpha = 6, where `config` does not say otherwise.

    Args:
        folder: made if it is not there.
        sizes: rank, inputs and outputs of each module, by its name in the released model.
        config: entries of adapter_config.json.

    Returns:
        The matrices of each module.
    """
    from glm_core.checkpoint.files import write_json, write_safetensors

    random = np.random.default_rng(seed)
    pairs: dict[str, Pair] = {}
    tensors = {}
    for module, (rank, inputs, outputs) in sizes.items():
        a = random.standard_normal((rank, inputs)).astype(np.float32) / math.sqrt(inputs)
        b = random.standard_normal((outputs, rank)).astype(np.float32)
        pairs[module] = a.astype(np.float32), b
        for kind, matrix in zip("AB", pairs[module], strict=True):
            name = f"base_model.model.{module}.lora_{kind}.weight"
            tensors[name] = torch.from_numpy(matrix)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none"} | config
    write_json(folder / "adapter_config.json", settings)
    return pairs
