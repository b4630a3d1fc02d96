"""Models larger than their memory: some layers stay, the others come just before they are needed.

While a layer computes, a thread reads the next one that does not stay into a second buffer; after
the last one comes the first again, for the next token. On the CPU layers come from the disk. On
CUDA they come from pinned host memory, where all of them are held, or from the disk.
What BMInf did for GLM-130B: arXiv 2210.02414, appendix B.5.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from glm_core.checkpoint.device_memory import readable
from glm_core.checkpoint.memory_plan import STREAMED_LAYERS
from glm_core.infer.layer_stream import CudaSlot, LayerStream, Slot


class WeightSource(Protocol):
    """Where the weights of a model lie (`glm_core.checkpoint.released.Checkpoint`, for one)."""

    def read_into(self, name: str, out: Tensor) -> None:
        """Fills `out` with the parameter or buffer `name`; called by one thread at a time."""


@dataclass(frozen=True, slots=True)
class OffloadReport:
    """What offloading costs."""

    resident: int
    num_layers: int
    bytes_per_token: int
    """Weights that every forward brings in."""
    bytes_per_second: float
    """How fast they have come so far."""

    @property
    def tokens_per_second(self) -> float:
        """The most that reading allows; computing takes place meanwhile."""
        return (
            self.bytes_per_second / self.bytes_per_token if self.bytes_per_token else float("inf")
        )

    def __str__(self) -> str:
        if not self.bytes_per_token:
            return f"offload: all {self.num_layers} layers resident, nothing is read per token"
        rate = self.tokens_per_second
        speed = f"{rate:.2g}" if rate < 10 else f"{rate:,.0f}"
        return (
            f"offload: {self.resident} of {self.num_layers} layers resident, each token reads "
            f"{readable(self.bytes_per_token)}, which allows about {speed} "
            f"tokens/s at the measured {readable(self.bytes_per_second)}/s"
        )


def offload_(
    model: nn.Module,
    source: WeightSource,
    resident: int | Sequence[int],
    device: torch.device | str = "cpu",
    hold: bool | None = None,
    on_read: Callable[[int], None] | None = None,
) -> OffloadedLayers:
    """Fills the resident layers of a model and lets the others stream through it.

    Afterwards the model is called as any other and gives the same values, bit for bit. Its weights
    cannot be trained. On the CPU the quantized matrices that pass through are brought into the
    order of the kernels each time, some rows at once while they are multiplied.

    Args:
        model: has `layers`, blocks of equal shapes on the meta device; the rest is on `device`.
        source: where the layers are read, under the names that the model's state_dict has.
        resident: which layers stay, or how many; they are then evenly spaced. Since two more are in
            memory while they pass, all stay if no more than two would not.
        device: where the model computes.
        hold: whether the other layers wait in (pinned) host memory rather than on the disk; None
            for yes on CUDA. On the CPU there would be no point in it.
        on_read: called with the number of bytes of each tensor that is read before this returns.

    Returns:
        What holds the layers: `report()` tells the cost, `close()` ends the thread. It lives as
        long as the model.

    Raises:
        ValueError: `resident` is not valid, or `hold` is asked for on the CPU.
    """
    return OffloadedLayers(model, source, resident, torch.device(device), hold, on_read)


class OffloadedLayers:
    """The layers of a model of which some are brought in when they are needed; see `offload_`."""

    def __init__(
        self,
        model: nn.Module,
        source: WeightSource,
        resident: int | Sequence[int],
        device: torch.device,
        hold: bool | None = None,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        assert isinstance(model.layers, nn.ModuleList)
        self._blocks = list(model.layers)
        self._device = device
        self._resident = resident_layers(len(self._blocks), resident)
        self._source = _Counted(source, on_read) if on_read else source
        self._meter = _Meter(source)
        model.requires_grad_(False)
        self._meta = [_tensors(block) for block in self._blocks]
        self._check(model)
        for index in self._resident:
            tensors = _empty_like(self._meta[index], device)
            self._read(self._source, index, tensors)
            _attach(self._blocks[index], tensors)
        streamed = [i for i in range(len(self._blocks)) if i not in self._resident]
        self._bytes_per_token = len(streamed) * sum(t.nbytes for t in self._meta[0].values())
        self._stream = self._start(streamed, hold) if streamed else None

    def report(self) -> OffloadReport:
        """What a token costs at the speed measured so far."""
        if self._stream is not None:
            self._stream.wait_for_first()
        return OffloadReport(
            len(self._resident),
            len(self._blocks),
            self._bytes_per_token,
            self._meter.bytes_per_second,
        )

    def close(self) -> None:
        """Ends the thread and frees the buffers; the model cannot be called any more."""
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> OffloadedLayers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, streamed: list[int], hold: bool | None) -> LayerStream:
        is_cuda = self._device.type == "cuda"
        if hold and not is_cuda:
            raise ValueError(
                f"hold is True on {self._device}: layers that wait in the same memory are resident;"
                " raise resident instead"
            )
        if hold or (hold is None and is_cuda):
            self._meter = _Meter(self._held(streamed))
        memory = [_empty_like(self._meta[0], self._device) for _ in range(STREAMED_LAYERS)]
        for tensor in itertools.chain.from_iterable(layer.values() for layer in memory):
            tensor.zero_()  # the kernel gives the pages now: the first read is as fast as any
        slots = [(CudaSlot if is_cuda else Slot)(layer) for layer in memory]
        stream = LayerStream(streamed, slots, partial(self._read, self._meter))
        for index in streamed:
            block = self._blocks[index]
            block.register_forward_pre_hook(partial(self._enter, index))
            block.register_forward_hook(partial(self._leave, index))
        return stream

    def _held(self, streamed: list[int]) -> _Held:
        """The streamed layers in pinned memory, as a source."""
        held: dict[str, Tensor] = {}
        for index in streamed:
            tensors = _empty_like(self._meta[index], torch.device("cpu"), pin_memory=True)
            self._read(self._source, index, tensors)
            held |= {_name(index, key): tensor for key, tensor in tensors.items()}
        return _Held(held)

    def _read(self, source: WeightSource, index: int, tensors: Mapping[str, Tensor]) -> None:
        for key, tensor in tensors.items():
            source.read_into(_name(index, key), tensor)

    def _enter(self, index: int, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() and any(
            isinstance(value, Tensor) and value.requires_grad for value in inputs
        ):
            raise ValueError(
                "an offloaded model cannot be differentiated, its layers are gone when the "
                "gradient comes: call it under torch.no_grad(), or load it without max_memory"
            )
        assert self._stream is not None
        _attach(block, self._stream.take(index).tensors)

    def _leave(self, index: int, block: nn.Module, inputs: Any, output: Any) -> None:
        assert self._stream is not None
        _attach(block, self._meta[index])
        self._stream.give_back()

    def _check(self, model: nn.Module) -> None:
        kinds = [{key: (t.shape, t.dtype) for key, t in layer.items()} for layer in self._meta]
        assert all(kind == kinds[0] for kind in kinds), "layers must have equal shapes"
        on_meta = {name for name, tensor in model.state_dict().items() if tensor.is_meta}
        layers = {_name(index, key) for index, layer in enumerate(self._meta) for key in layer}
        assert on_meta == layers, f"must be on meta, and nothing else: {sorted(on_meta ^ layers)}"


def resident_layers(num_layers: int, resident: int | Sequence[int]) -> tuple[int, ...]:
    """Which layers stay.

    Args:
        resident: their numbers, or how many they are: the others are then evenly spaced, so that
            there is equally much to compute while each is read.

    Raises:
        ValueError: there are no such layers.
    """
    every = range(num_layers)
    if isinstance(resident, int):
        if not 0 <= resident <= num_layers:
            raise ValueError(f"resident is {resident}: the model has {num_layers} layers")
        count = num_layers - resident
        streamed = {number * num_layers // count for number in range(count)}
    else:
        if not set(resident) <= set(every):
            raise ValueError(f"resident is {list(resident)}: layers are 0 to {num_layers - 1}")
        streamed = set(every) - set(resident)
    # that many are in memory in any case
    streamed = streamed if len(streamed) > STREAMED_LAYERS else set()
    return tuple(index for index in every if index not in streamed)


def _name(index: int, key: str) -> str:
    return f"layers.{index}.{key}"


def _tensors(block: nn.Module) -> dict[str, Tensor]:
    return block.state_dict(keep_vars=True)


def _empty_like(
    tensors: Mapping[str, Tensor], device: torch.device, pin_memory: bool = False
) -> dict[str, Tensor]:
    """Memory for a layer; parameters are made of what are parameters."""
    made: dict[str, Tensor] = {}
    with torch.inference_mode(False):  # no other thread could fill tensors of that mode
        for key, like in tensors.items():
            empty = torch.empty(like.shape, dtype=like.dtype, device=device, pin_memory=pin_memory)
            is_parameter = isinstance(like, nn.Parameter)
            made[key] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
    return made


def _attach(block: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Makes tensors the parameters and buffers of a block; copies nothing."""
    for key, tensor in tensors.items():
        owner, _, leaf = key.rpartition(".")
        setattr(block.get_submodule(owner), leaf, tensor)


class _Meter:
    """A source that measures how fast another one is."""

    def __init__(self, source: WeightSource) -> None:
        self._source = source
        self._bytes, self._seconds = 0, 0.0

    @property
    def bytes_per_second(self) -> float:
        """Mean of all reading so far; 0 before the first."""
        return self._bytes / self._seconds if self._seconds else 0.0

    def read_into(self, name: str, out: Tensor) -> None:
        begin = time.perf_counter()
        self._source.read_into(name, out)
        if out.is_cuda:
            torch.cuda.current_stream(out.device).synchronize()
        self._seconds += time.perf_counter() - begin
        self._bytes += out.nbytes


class _Counted:
    """A source that tells how many bytes another one has read."""

    def __init__(self, source: WeightSource, on_read: Callable[[int], None]) -> None:
        self._source, self._on_read = source, on_read

    def read_into(self, name: str, out: Tensor) -> None:
        self._source.read_into(name, out)
        self._on_read(out.nbytes)


class _Held:
    """Pinned host memory as a source."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def read_into(self, name: str, out: Tensor) -> None:
        out.copy_(self._tensors[name], non_blocking=True)
