"""Texts with a KV cache of their own each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from glm_core.attention import Causal, Full, MaskSpec, PrefixLM
from glm_core.infer.kv_cache import KVCache
from glm_core.model.config import TransformerConfig
from glm_core.model.transformer import Transformer

PAGE_SIZE = 64


@dataclass(eq=False)
class Text:
    """A text being decoded."""

    cache: KVCache
    prefix_len: int
    num_pages: int = 0
    fork_pages: int = 0


@dataclass(frozen=True)
class Work:
    """Columns that one text reads in a step."""

    text: Text
    ids: Sequence[int]
    places: Sequence[tuple[int, int]]
    wants: Literal["none", "last", "all"] = "last"


class Runner:
    """Steps one text after the other.

    Args:
        model: in evaluation mode.
        num_pages: pages counted.
    """

    page_size = PAGE_SIZE

    def __init__(self, model: Transformer, num_pages: int) -> None:
        self.model, self.num_pages, self.num_free_pages = model, num_pages, num_pages

    def pages_for(self, count: int, adapter: str = "") -> int:
        """Returns how many pages a text of so many columns takes."""
        return -(-count // PAGE_SIZE)

    def open(
        self,
        ids: Sequence[int],
        places: Sequence[tuple[int, int]],
        prefix_len: int = 0,
        adapter: str = "",
    ) -> tuple[Text, int]:
        """Returns a text of no columns."""
        config = self.model.config
        cache = KVCache.for_model(config, 1, len(ids) + 64, self.model.dtype, self.model.device)
        return Text(cache, prefix_len), 0

    def reserve(self, text: Text, count: int, forks: int = 0, at: int = 0) -> bool:
        """Sets pages aside."""
        one = self.pages_for(count)
        of_fork = one - at // PAGE_SIZE
        if one + forks * of_fork > self.num_free_pages:
            return False
        self.num_free_pages -= one + forks * of_fork
        text.num_pages, text.fork_pages = one + forks * of_fork, of_fork
        return True

    def step(self, works: Sequence[Work]) -> list[Tensor | None]:
        """Reads the columns of each text."""
        return [self._read(work) for work in works]

    def crop(self, text: Text, length: int) -> None:
        """Forgets columns."""
        text.cache.crop(length)

    def fork(self, text: Text) -> Text:
        """Copies a text."""
        text.num_pages -= text.fork_pages
        return Text(copy.deepcopy(text.cache), text.prefix_len, text.fork_pages)

    def close(self, text: Text, keep: bool = True) -> None:
        """Forgets a text."""
        self.num_free_pages += text.num_pages
        text.num_pages = 0

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Returns the mean of the last hidden states, of length 1."""
        places = torch.tensor([[(column, 0) for column in range(len(ids))]]).transpose(1, 2)
        with torch.inference_mode():
            hidden_TD = self.model(torch.tensor([list(ids)]), places, Causal())[0].float()
        return torch.nn.functional.normalize(hidden_TD.mean(dim=0), dim=0)

    def _read(self, work: Work) -> Tensor | None:
        cache, prefix_len = work.text.cache, work.text.prefix_len
        mask: MaskSpec = PrefixLM((prefix_len,)) if prefix_len else Causal()
        if len(work.ids) == 1:
            mask = Full()
        cache.reserve(cache.length + len(work.ids))
        with torch.inference_mode():
            ids, places = torch.tensor([list(work.ids)]), torch.tensor([list(work.places)])
            hidden = self.model(ids, places.transpose(1, 2), mask, cache)[0]
            if work.wants == "none":
                return None
            logits = self.model.logits(hidden if work.wants == "all" else hidden[-1:]).float()
        return logits if work.wants == "all" else logits[0]


def stack_rows(rows: Sequence[Tensor]) -> Tensor:
    """Returns rows as one tensor."""
    return torch.stack(list(rows))


def bytes_per_page(config: TransformerConfig, dtype: torch.dtype) -> int:
    """Returns the memory of a page."""
    numbers = 2 * config.num_blocks * PAGE_SIZE * config.num_kv_heads * config.head_dim
    return numbers * dtype.itemsize
