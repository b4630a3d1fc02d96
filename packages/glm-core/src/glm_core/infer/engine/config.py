"""How much an engine takes on at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

CacheDtype = Literal["model", "float32", "bfloat16", "float16"]
CACHE_DTYPES: tuple[str, ...] = get_args(CacheDtype)


@dataclass(kw_only=True, slots=True)
class EngineConfig:
    """Limits of one engine. What goes beyond them is refused or waits; nothing is ever evicted."""

    max_running: int = 32
    """Answers decoded together; each answer of a request with several counts."""
    prefill_chunk: int = 256
    """Tokens of prompts read in one step, beside one token of every running answer. Contexts that
    the model looks at as a whole (prefix-LM) are read in one piece all the same."""
    prefill_seconds: float = 0.25
    """Time for which reading prompts may keep running answers waiting in a step; where that many
    tokens take longer, fewer are read."""
    max_queued: int = 256
    """Requests that may wait; more are refused with EngineBusy."""
    max_queued_tokens: int = 0
    """Tokens of prompts and longest answers that may wait; 0: four times what the cache holds."""
    cache_bytes: int = 0
    """Memory of keys and values; 0: `cache_fraction` of what is free when the engine starts."""
    cache_fraction: float = 0.5
    """Share of the free memory for keys and values when `cache_bytes` is 0."""
    cache_dtype: CacheDtype = "model"
    """Of keys and values: the model's own, or one of 16 bits, which takes half of float32's memory
    and, where texts are long, much less time; answers differ in what it rounds."""
    max_request_tokens: int = 0
    """Longest prompt with its answer; 0: the model's context."""

    def __post_init__(self) -> None:
        for name in ("max_running", "prefill_chunk", "max_queued"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"engine.{name} is {value}: it must be at least 1")
        for name in ("max_queued_tokens", "cache_bytes", "max_request_tokens"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"engine.{name} is {value}: it must be at least 0")
        if self.cache_dtype not in CACHE_DTYPES:
            raise ValueError(
                f"engine.cache_dtype is {self.cache_dtype!r}: it must be one of "
                f"{', '.join(CACHE_DTYPES)}"
            )
        if self.prefill_seconds <= 0:
            raise ValueError(
                f"engine.prefill_seconds is {self.prefill_seconds}: it must be above 0"
            )
        if not 0.0 < self.cache_fraction < 1.0:
            raise ValueError(
                f"engine.cache_fraction is {self.cache_fraction}: it must lie between 0 and 1"
            )
