"""Block sizes of the kernels that have a choice: by op, shape and GPU.

`lookup` takes, in this order: what `use_config` says, what ``glm bench kernels --tune`` measured
on this GPU (`glm_kernels.measured`), the built-in choice for this generation of GPUs, the built-in
default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from glm_kernels.measured import remembers, table_of

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

_HEADS = ("h64", "h128", "h256", "h32", "h16", "h64w", "h128w", "h256w", "h32w", "h16w")
_SHAPES: dict[str, tuple[str, ...]] = {
    "attention_forward": ("few", *_HEADS, "feww"),
    "attention_grad_q": _HEADS,
    "attention_grad_kv": _HEADS,
    "weight_only_vector": ("b4", "b8"),
    "weight_only_matrix": ("m16", "m64", "many", "default"),
    "weight_only_dequantize": ("b4", "b8"),
}
"""What the launches look up, the most common first."""
_STEPS: dict[str, tuple[int, ...]] = {
    "BLOCK_M": (16, 32, 64, 128, 256),
    "BLOCK_N": (16, 32, 64, 128, 256),
    "BLOCK_K": (32, 64, 128, 256),
    "BLOCK_W": (16, 32, 64, 128, 256, 512, 1024),
    "WORDS": (8, 16, 32, 64, 128, 256),
    "num_warps": (1, 2, 4, 8, 16),
    "num_stages": (1, 2, 3, 4, 5, 6),
}
"""Values of a setting, in order."""

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
        ValueError: the table that the environment names does not fit; see `measured.table_of`.
    """
    if op in _overrides:
        return _overrides[op]
    return _chosen(op, shape, device)


def shapes(op: str) -> tuple[str, ...]:
    """Return the classes of shapes that launches of `op` look up: what a tuner has to measure."""
    return _SHAPES[op]


def candidates(op: str) -> list[Config]:
    """Return the configs that a tuner tries first for `op`: every choice of the built-in tables."""
    found = [config for config in _DEFAULTS[op].values()]
    for tables in _BY_CAPABILITY.values():
        found += tables.get(op, {}).values()
    return [config for i, config in enumerate(found) if config not in found[:i]]


def neighbours(config: Config) -> list[Config]:
    """Return the configs that differ in one setting, by one step: what a tuner tries then."""
    found = []
    for name, value in config.items():
        steps = _STEPS[name]
        at = steps.index(value)
        found += [{**config, name: other} for other in (*steps[at + 1 : at + 2], *steps[:at][-1:])]
    return found


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


@remembers
@cache
def _chosen(op: str, shape: str, device: torch.device) -> Config:
    measured = table_of(device).configs.get(op, {})
    return measured[shape] if shape in measured else built_in(op, shape, device)


def built_in(op: str, shape: str, device: torch.device) -> Config:
    """Return the config of a GPU on which nothing was measured."""
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0
    of_generation = _BY_CAPABILITY.get(major, {}).get(op, {})
    if shape in of_generation:
        return of_generation[shape]
    defaults = _DEFAULTS[op]
    config = defaults.get(shape, defaults["default"])
    if torch.version.hip and "num_stages" in config:
        return {**config, "num_stages": 1}  # 64 KiB of shared memory hold no more
    return config
