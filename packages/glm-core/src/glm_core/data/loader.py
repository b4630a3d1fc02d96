"""Micro-batches from a dataset; the whole state is the number of samples consumed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch.utils.data import DataLoader

from glm_core.data.batch import Batch, Sample, collate
from glm_core.data.config import DataConfig
from glm_core.data.mixture import build_dataset
from glm_core.data.prepare import PreparedData, prepare_data
from glm_core.tokenizer.protocol import Tokenizer


class SampleSource(Protocol):
    """What a Loader reads: samples by global index."""

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`, a pure function of it."""
        ...


class Loader:
    """Iterates over micro-batches for ever, from sample number `start` on.

    Batch b of rank r holds samples start + (b * world_size + r) * batch_size and the following.
    Number and speed of workers change nothing.
    """

    def __init__(
        self,
        dataset: SampleSource,
        batch_size: int,
        start: int = 0,
        num_workers: int = 0,
        *,
        seq_length: int,
        pad_id: int,
        rank: int = 0,
        world_size: int = 1,
        stop: int | None = None,
        pin_memory: bool = False,
    ) -> None:
        """Args:
            batch_size: rows of one batch on one rank.
            start: samples consumed before, over all ranks: the `state` of an earlier loader.
            num_workers: processes that build batches ahead; 0 builds them in this process.
            seq_length: tokens of every row.
            pad_id: token that fills rows.
            stop: end before the batch that would need this sample or a later one.

        Raises:
            ValueError: for a size or a start that makes no sense.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if start < 0:
            raise ValueError(f"loader start={start} must not be negative")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank} must be between 0 and world_size-1={world_size - 1}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.rank, self.world_size = rank, world_size
        self._stop, self._pin_memory = stop, pin_memory
        self._collate = _Collate(seq_length, pad_id)
        self._state = start

    @property
    def state(self) -> int:
        """Samples consumed so far over all ranks; counts a batch once it has been handed out."""
        return self._state

    @state.setter
    def state(self, consumed: int) -> None:
        if consumed < 0:
            raise ValueError(f"loader state={consumed} must not be negative")
        self._state = consumed

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the present state on."""
        loader: DataLoader[Sample] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_sampler=_Consecutive(
                self._state, self.batch_size, self.rank, self.world_size, self._stop
            ),
            num_workers=self.num_workers,
            collate_fn=self._collate,
            pin_memory=self._pin_memory,
            worker_init_fn=_ignore_interrupts if self.num_workers else None,
        )
        for batch in loader:
            self._state += self.batch_size * self.world_size
            yield batch


def build_loader(
    config: DataConfig,
    tokenizer: Tokenizer,
    batch_size: int,
    start: int = 0,
    *,
    prepared: PreparedData | None = None,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """A loader over `config.split`.

    Args:
        tokenizer: must be the one that `prepare_data(config)` gives.
        prepared: what `prepare_data(config)` gave, so that it need not be opened again.

    Raises:
        ValueError: if the corpus was made with another tokenizer.
    """
    prepared = prepare_data(config) if prepared is None else prepared
    if prepared.tokenizer.fingerprint() != tokenizer.fingerprint():
        raise ValueError(
            f"data.source={config.source!r} was prepared with another tokenizer than the model's: "
            "set data.tokenizer to the model's tokenizer folder"
        )
    return Loader(
        build_dataset(config, prepared),
        batch_size,
        start,
        config.workers,
        seq_length=config.seq_length,
        pad_id=tokenizer.pad_id,
        rank=rank,
        world_size=world_size,
        pin_memory=pin_memory,
    )


@dataclass(frozen=True)
class _Collate:
    """`collate` with its settings; picklable, for workers that are spawned."""

    seq_length: int
    pad_id: int

    def __call__(self, samples: list[Sample]) -> Batch:
        return collate(samples, self.seq_length, self.pad_id)


@dataclass(frozen=True)
class _Consecutive:
    """Index lists of one rank's batches, in order."""

    start: int
    batch_size: int
    rank: int
    world_size: int
    stop: int | None

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start + self.rank * self.batch_size
        while self.stop is None or first + self.batch_size <= self.stop:
            yield list(range(first, first + self.batch_size))
            first += self.batch_size * self.world_size


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C is for the trainer, which saves and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
