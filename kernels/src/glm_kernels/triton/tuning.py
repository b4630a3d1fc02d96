"""Block sizes of the kernels that have a choice: by op, shape and GPU.

`lookup` takes, in this order: what `use_config` says, the table of this GPU that
``GLM_KERNELS_TUNING`` names (written by ``glm bench kernels --tune``), the built-in choice for
this generation of GPUs, the built-in default. A table is JSON:

    {"device": "NVIDIA H200", "configs": {"attention_forward": {"h128": {"BLOCK_M": 128, ...}}}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

TABLE_VARIABLE = "GLM_KERNELS_TUNING"

Config = dict[str, int]
"""Block sizes, num_warps and num_stages: the keyword arguments of a launch."""


def _blocks(m: int, n: int, num_warps: int, num_stages: int) -> Config:
    return {"BLOCK_M": m, "BLOCK_N": n, "num_warps": num_warps, "num_stages": num_stages}


# Shapes of attention: "h" with the head dim rounded up to a power of two, "w" where elements have
# 4 bytes, "few" where the queries of all heads that share a key head fit in 16 rows (decoding).
_DEFAULTS: dict[str, dict[str, Config]] = {
    "attention_forward": {
        "h16": _blocks(128, 64, 4, 3),
        "h32": _blocks(128, 64, 4, 3),
        "h64": _blocks(128, 64, 4, 3),
        "h128": _blocks(128, 64, 8, 3),
        "h256": _blocks(64, 32, 8, 2),
        "few": _blocks(16, 64, 4, 2),
        "feww": _blocks(16, 16, 8, 1),
        "h256w": _blocks(16, 16, 8, 1),
        "default": _blocks(32, 32, 8, 1),
    },
    "attention_grad_q": {
        "h16": _blocks(64, 64, 4, 2),
        "h32": _blocks(64, 64, 4, 2),
        "h64": _blocks(64, 64, 4, 2),
        "h128": _blocks(64, 64, 8, 2),
        "h256w": _blocks(16, 16, 8, 1),
        "default": _blocks(32, 32, 8, 1),
    },
    "attention_grad_kv": {
        "h16": _blocks(64, 64, 8, 2),
        "h32": _blocks(64, 64, 8, 2),
        "h64": _blocks(64, 128, 8, 2),
        "h128": _blocks(32, 128, 8, 2),
        "h256w": _blocks(16, 16, 8, 1),
        "default": _blocks(32, 32, 8, 1),
    },
}

# Shapes of weight-only products: "b" with the bits of a level for one row of activations, "m" with
# the most rows otherwise; fp32 activations take the default.
_DEFAULTS |= {
    "weight_only_vector": {
        "b4": {"BLOCK_W": 128, "num_warps": 4},
        "b8": {"BLOCK_W": 256, "num_warps": 4},
        "default": {"BLOCK_W": 128, "num_warps": 4},
    },
    "weight_only_matrix": {
        "m16": {**_blocks(16, 32, 4, 4), "BLOCK_K": 128},
        "m64": {**_blocks(64, 64, 4, 3), "BLOCK_K": 64},
        "many": {**_blocks(128, 128, 8, 3), "BLOCK_K": 64},
        "default": {**_blocks(32, 32, 4, 2), "BLOCK_K": 64},
    },
    "weight_only_dequantize": {"default": {"WORDS": 64, "num_warps": 4}},
}

_BY_CAPABILITY: dict[int, dict[str, dict[str, Config]]] = {}
"""Choices measured for a generation of GPUs: {major capability: {op: {shape: config}}}."""

_overrides: dict[str, Config] = {}


def lookup(op: str, shape: str, device: torch.device) -> Config:
    """Return how `op` is launched on tensors of a shape.

    Args:
        op: name of a kernel in the tables.
        shape: name of a class of shapes; one that no table knows gets the op's default.
        device: where the tensors are.

    Raises:
        ValueError: the table that the environment names cannot be read, or is of another GPU.
    """
    if op in _overrides:
        return _overrides[op]
    return _chosen(op, shape, device)


def shapes(op: str) -> list[str]:
    """Return the classes of shapes that `op` tells apart: what a tuner has to measure."""
    return list(_DEFAULTS[op])


def candidates(op: str) -> list[Config]:
    """Return the configs that a tuner may try for `op`: every choice of the built-in tables."""
    found = [config for config in _DEFAULTS[op].values()]
    for tables in _BY_CAPABILITY.values():
        found += tables.get(op, {}).values()
    return [config for i, config in enumerate(found) if config not in found[:i]]


@contextmanager
def use_config(op: str, config: Config) -> Iterator[None]:
    """Launch `op` with this config inside the ``with`` block, whatever the shape."""
    before = _overrides.get(op)
    _overrides[op] = config
    try:
        yield
    finally:
        if before is None:
            del _overrides[op]
        else:
            _overrides[op] = before


@cache
def _chosen(op: str, shape: str, device: torch.device) -> Config:
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0
    for table in (_table_of(device), _BY_CAPABILITY.get(major, {})):
        if shape in table.get(op, {}):
            return table[op][shape]
    defaults = _DEFAULTS[op]
    config = defaults.get(shape, defaults["default"])
    if torch.version.hip and "num_stages" in config:
        return {**config, "num_stages": 1}  # 64 KiB of shared memory hold no more
    return config


def _table_of(device: torch.device) -> dict[str, dict[str, Config]]:
    """Return the configs of the file in the environment, or none."""
    path = os.environ.get(TABLE_VARIABLE)
    if not path:
        return {}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    try:
        table = json.loads(Path(path).read_text())
        of_device, configs = table["device"], table["configs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{TABLE_VARIABLE}={path} is no table of tuned kernels ({error}): write it again with "
            "`glm bench kernels --tune`, or unset the variable"
        ) from error
    if of_device != name:
        raise ValueError(
            f"{TABLE_VARIABLE}={path} was measured on {of_device}, but this is {name}: write one "
            "here with `glm bench kernels --tune`, or unset the variable"
        )
    result: dict[str, dict[str, Config]] = configs
    return result
