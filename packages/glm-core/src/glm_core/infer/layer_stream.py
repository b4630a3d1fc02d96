"""Layers read ahead of their use, in a circle, into memory that is used again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor


class Slot:
    """Memory for one layer on the device, filled again and again."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def fill(self, read: Callable[[Mapping[str, Tensor]], None]) -> None:
        """Reads a layer; returns when it is there. Called by the thread."""
        read(self.tensors)

    def done(self) -> None:
        """The layer has been used."""


class CudaSlot(Slot):
    """Is filled beside the stream that computes, once that is done with what was there."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__(tensors)
        self._device = next(iter(tensors.values())).device
        self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._used = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def fill(self, read: Callable[[Mapping[str, Tensor]], None]) -> None:
        self._used.synchronize()
        with torch.cuda.stream(self._copies):
            read(self.tensors)
        self._copies.synchronize()

    def done(self) -> None:
        self._used.record(torch.cuda.current_stream(self._device))


@dataclass(slots=True)
class _Coming:
    """A layer that is being read, or waits for that."""

    index: int
    slot: Slot
    future: Future[None]


class LayerStream:
    """Reads layers ahead, in a circle, into a few slots.

    Everything but the reading itself happens in the caller's thread.

    Args:
        order: the layers, as they are needed.
        slots: where they go.
        read: fills tensors with a layer.
    """

    def __init__(
        self,
        order: Sequence[int],
        slots: Sequence[Slot],
        read: Callable[[int, Mapping[str, Tensor]], None],
    ) -> None:
        self._after = dict(zip(order, [*order[1:], order[0]], strict=True))
        self._free = deque(slots)
        self._read = read
        self._coming: deque[_Coming] = deque()
        self._taken: Slot | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="glm-offload")
        self._is_closed = False
        self._read_ahead(order[0])

    def take(self, index: int) -> Slot:
        """Waits until a layer is there.

        Raises:
            Exception: what the source raised when it was read; it is read again when taken again.
        """
        if self._is_closed:
            raise ValueError("the offloaded layers were closed: load the model again")
        self.give_back()  # a forward that was interrupted has not
        while self._coming and self._coming[0].index != index:
            self._drop_first()  # the forward before was interrupted
        if not self._coming:
            self._read_ahead(index)
        coming = self._coming[0]
        try:
            coming.future.result()
        except BaseException:
            # Ctrl-C may come here while the thread still writes into the slot
            if coming.future.done():
                self._drop_first()
            raise
        self._coming.popleft()
        self._taken = coming.slot
        return coming.slot

    def give_back(self) -> None:
        """The layer that was taken is no longer needed: its slot is filled with a later one."""
        if self._taken is None:
            return
        self._taken.done()
        self._free.append(self._taken)
        self._taken = None
        if self._coming:
            self._read_ahead(self._after[self._coming[-1].index])

    def wait_for_first(self) -> None:
        """Returns when the first of the coming layers is there, or could not be read."""
        if self._coming and not self._is_closed:
            self._coming[0].future.exception()

    def close(self) -> None:
        """Ends the thread, after what it is reading just now."""
        self._is_closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()
        self._free.clear()
        self._taken = None

    def _read_ahead(self, index: int) -> None:
        """Has all free slots filled, with `index` and those after it."""
        while self._free:
            slot = self._free.popleft()
            future = self._thread.submit(slot.fill, partial(self._read, index))
            self._coming.append(_Coming(index, slot, future))
            index = self._after[index]

    def _drop_first(self) -> None:
        coming = self._coming[0]
        if not coming.future.cancel():
            coming.future.exception()
        self._coming.popleft()
        self._free.append(coming.slot)
