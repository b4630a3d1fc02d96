"""The cache itself, and: decoding with it equals one full forward."""

from __future__ import annotations

import pytest
import torch

from glm_core.attention import Causal, LeftPadded, MaskSpec, PrefixLM
from glm_core.infer import KVCache
from glm_core.model import Transformer

LENGTH, PREFIX = 14, 6
MASKS: dict[str, MaskSpec] = {
    "causal": Causal(),
    "prefix": PrefixLM((PREFIX, 4)),
    "left_padded_causal": LeftPadded(Causal(), (0, 3)),
    "left_padded_prefix": LeftPadded(PrefixLM((PREFIX, 3)), (0, 2)),
}
# Measured worst error over all cases: 6.2e-6 (logits up to 6.7).
TOLERANCE = 3e-5


def _inputs(model: Transformer) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, model.config.vocab_size, (2, LENGTH), generator=generator)
    position = torch.arange(LENGTH).clamp(max=PREFIX - 1)
    block = (torch.arange(LENGTH) - PREFIX + 1).clamp(min=0)
    return ids, torch.stack([position, block]).expand(2, 2, LENGTH)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("chunk", [1, 3])
def test_cached_decoding_equals_full_forward_when_fed_in_chunks(
    model_of_each_position: Transformer, mask: MaskSpec, chunk: int
) -> None:
    model = model_of_each_position
    ids, positions = _inputs(model)
    cache = KVCache.for_model(model.config, batch=2, max_len=LENGTH)
    with torch.no_grad():
        full = model.logits(model(ids, positions, mask))
        parts = [model(ids[:, :PREFIX], positions[:, :, :PREFIX], mask, cache)]
        for start in range(PREFIX, LENGTH, chunk):
            new = slice(start, start + chunk)
            parts.append(model(ids[:, new], positions[:, :, new], mask, cache))
        cached = model.logits(torch.cat(parts, dim=1))
    error = (cached - full).abs().max().item()
    assert error < TOLERANCE, error


def test_decoding_is_the_same_when_rows_were_reordered_moved_and_regrown(
    model_of_each_position: Transformer,
) -> None:
    model = model_of_each_position
    ids, positions = _inputs(model)
    padded = LeftPadded(PrefixLM((PREFIX, PREFIX)), (3, 3))
    with torch.no_grad():
        full = model(ids, positions, PrefixLM((PREFIX, PREFIX)))
        cache = KVCache.for_model(model.config, batch=2, max_len=LENGTH - 1)
        model(ids[:, :-1], positions[:, :, :-1], PrefixLM((PREFIX, PREFIX)), cache)
        cache.reorder([1, 0, 1])
        cache.reorder([1, 0])
        cache.reserve(LENGTH + 3)
        cache.length += 3
        cache.move_rows([0, 0], [3, 3], [LENGTH - 1, LENGTH - 1])
        last = model(ids[:, -1:], positions[:, :, -1:], padded, cache)
    # Measured worst error: 9.5e-7.
    torch.testing.assert_close(last[:, 0], full[:, -1], atol=1e-5, rtol=0)


def test_crop_forgets_columns_when_decoding_is_rolled_back(
    model_of_each_position: Transformer,
) -> None:
    model = model_of_each_position
    ids, positions = _inputs(model)
    cache = KVCache.for_model(model.config, batch=2, max_len=LENGTH)
    with torch.no_grad():
        model(ids, positions, Causal(), cache)
        first = model(ids[:, -1:], positions[:, :, -1:], Causal(), _cropped(cache))
        again = model(ids[:, -1:], positions[:, :, -1:], Causal(), _cropped(cache))
    assert torch.equal(first, again)
    assert cache.length == LENGTH


def _cropped(cache: KVCache) -> KVCache:
    cache.crop(LENGTH - 1)
    return cache


def test_append_raises_when_the_cache_is_full() -> None:
    cache = KVCache(num_layers=1, batch=1, max_len=4, num_kv_heads=1, head_dim=2)
    five = torch.zeros(1, 5, 1, 2)
    with pytest.raises(ValueError, match="holds 4 columns but 5 are needed: build it with"):
        cache.append(0, five, five)


def test_crop_raises_when_longer_than_the_cache() -> None:
    cache = KVCache(num_layers=1, batch=1, max_len=4, num_kv_heads=1, head_dim=2)
    with pytest.raises(ValueError, match="cannot crop a KV cache of 0 columns to 3"):
        cache.crop(3)
