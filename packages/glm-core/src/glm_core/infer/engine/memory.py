"""How many pages an engine's cache has."""

from __future__ import annotations

import torch

from glm_core.checkpoint.device_memory import free_memory
from glm_core.infer.engine.config import EngineConfig
from glm_core.infer.paged import PAGE_SIZE, bytes_per_page
from glm_core.model.transformer import Transformer


def cache_dtype(model: Transformer, config: EngineConfig) -> torch.dtype:
    """Returns the dtype of keys and values."""
    if config.cache_dtype == "model":
        return model.dtype
    dtype: torch.dtype = getattr(torch, config.cache_dtype)
    return dtype


def pages_for(model: Transformer, config: EngineConfig, longest: int) -> int:
    """Returns how many pages the cache of an engine has.

    Unless `config.cache_bytes` says it, enough that all answers can be as long as they may become:
    few ever are, and the pages that they leave remember prompts.

    Args:
        longest: columns of the longest request.

    Raises:
        ValueError: not one page fits into `config.cache_bytes`.
    """
    page_bytes = bytes_per_page(model.config, cache_dtype(model, config))
    if config.cache_bytes:
        if config.cache_bytes < page_bytes:
            raise ValueError(
                f"engine.cache_bytes is {config.cache_bytes}: it must be at least {page_bytes}, "
                f"the {PAGE_SIZE} columns of a page"
            )
        return config.cache_bytes // page_bytes
    wanted = config.max_running * -(-longest // PAGE_SIZE)
    free = free_memory(model.device)
    if free is not None:
        wanted = min(wanted, int(config.cache_fraction * free) // page_bytes)
    return max(wanted, 1)
