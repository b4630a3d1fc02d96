"""How many pages an engine's cache gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from glm_core.infer.engine import EngineConfig, memory
from glm_core.infer.engine.memory import pages_for
from glm_core.infer.paged import bytes_per_page
from glm_core.model import Transformer

Build = Callable[..., Transformer]


def test_cache_holds_the_pages_that_its_bytes_allow(build_model: Build) -> None:
    model = build_model()
    page = bytes_per_page(model.config, model.dtype)
    assert page == 2 * 2 * 64 * 64 * 4  # keys and values, blocks, columns, numbers, bytes
    assert pages_for(model, EngineConfig(cache_bytes=3 * page + 1), 96) == 3
    assert pages_for(model, EngineConfig(cache_bytes=3 * page, cache_dtype="float16"), 96) == 6
    with pytest.raises(ValueError, match=f"engine.cache_bytes is {page - 1}: it must be at least"):
        pages_for(model, EngineConfig(cache_bytes=page - 1), 96)


def test_cache_is_a_share_of_the_free_memory_but_no_more_than_is_of_use(
    build_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model()
    page = bytes_per_page(model.config, model.dtype)
    config = EngineConfig(max_running=3, cache_fraction=0.25)
    for free, expected in ((16 * page, 4), (10**12, 3 * 2), (0, 1), (None, 6)):
        monkeypatch.setattr(memory, "free_memory", lambda _, free=free: free)
        assert pages_for(model, config, 96) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_running": 0}, "engine.max_running is 0: it must be at least 1"),
        ({"prefill_chunk": -1}, "engine.prefill_chunk is -1"),
        ({"prefill_seconds": 0.0}, "engine.prefill_seconds is 0.0: it must be above 0"),
        ({"max_queued": 0}, "engine.max_queued is 0"),
        ({"cache_bytes": -1}, "engine.cache_bytes is -1: it must be at least 0"),
        ({"max_request_tokens": -5}, "engine.max_request_tokens is -5"),
        ({"cache_dtype": "int8"}, "engine.cache_dtype is 'int8': it must be one of model, float32"),
        ({"cache_fraction": 1.0}, "engine.cache_fraction is 1.0: it must lie between 0 and 1"),
    ],
)
def test_limits_are_checked(fields: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineConfig(**fields)  # type: ignore[arg-type]
