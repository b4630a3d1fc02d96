"""Decoding on a GPU by CUDA graphs: a column of all rows is one launch.

A graph holds addresses: it works on tensors that stay where they are. So the keys and values of the
texts being decoded are moved once into memory that all graphs share, and the tokens of each column
are copied to one place. There is a graph for each number of rows (a power of two) and each room for
columns, recorded when it is first needed and kept for as long as the weights stay where they are.

Letters: B rows, C columns of room, K key/value heads, H head size, V vocabulary.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor

from glm_core.infer.decodable import why_not_decodable
from glm_core.infer.kv_cache import KVCache
from glm_core.infer.static_step import column_inputs, static_step
from glm_core.model.transformer import Transformer

logger = logging.getLogger(__name__)

Place = tuple[int, int]
Step = Callable[[Transformer], Tensor]
"""Computes a column from inputs, keys and values that it knows; returns logits [B, V]."""
Capture = Callable[[Step, Transformer], Step]
"""Returns what does the same as a step for the same model, faster."""
Room = tuple[int, int]
"""Rows and columns that keys and values have room for."""

_WARM_UPS = 2
_LEAST_COLUMNS = 256
_MOST_GRAPHS = 32


def capture_graph(step: Step, model: Transformer) -> Step:
    """Records a step as a CUDA graph; returns what replays it.

    Args:
        step: run again, it does the same again. What it returns is overwritten by the next replay.
    """
    current = torch.cuda.current_stream(model.device)
    stream = torch.cuda.Stream(model.device)  # type: ignore[no-untyped-call]
    stream.wait_stream(current)
    with torch.cuda.stream(stream):  # compiles kernels, and lets libraries take their memory
        for _ in range(_WARM_UPS):
            step(model)
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        # other threads may go on allocating memory meanwhile
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            logits_BV = step(model)
    except RuntimeError as error:
        logger.warning("columns are decoded without a CUDA graph: %s", error)
        return step

    def replay(_: Transformer) -> Tensor:
        graph.replay()
        return logits_BV

    return replay


class Graphs:
    """The recorded steps of a model, and the keys and values that they work on.

    Those of one cache at a time lie there; another one that comes sends it away, with a copy.

    Args:
        capture: makes a step fast.
    """

    def __init__(self, model: Transformer, capture: Capture = capture_graph) -> None:
        self._capture = capture
        self._weights = _layout_of_weights(model)
        self._storage = torch.empty(
            (2 * model.config.num_blocks, 0), dtype=model.dtype, device=model.device
        )
        """[2 * layers, elements]: the keys of all layers, then the values."""
        self._steps: dict[Room, tuple[Tensor, Step]] = {}
        """The inputs of each and what computes them."""
        self._guest: ReferenceType[KVCache] | None = None
        self._lent: Tensor | None = None
        """Keys of the guest's first layer, for as long as it lives here."""

    def fit(self, model: Transformer) -> bool:
        """Whether the weights of the model are where they were."""
        return self._weights == _layout_of_weights(model)

    @torch.no_grad()
    def step(
        self,
        model: Transformer,
        tokens: Sequence[int],
        places: Sequence[Place],
        pads: Sequence[int],
        cache: KVCache,
    ) -> Tensor:
        """Computes a column of a cache that has room for it; see `ColumnDecoder`."""
        room = 1 << (cache.batch - 1).bit_length(), _round_up(cache.capacity)
        if cache.keys[0] is not self._lent:
            self._take_in(cache, room)
        prefix_len = 0 if model.prefix is None else model.prefix.prefix_len
        inputs_6B = column_inputs(tokens, places, pads, cache.length, prefix_len, room[0])
        if room in self._steps:
            self._steps[room][0].copy_(inputs_6B)
        else:
            self._add(model, room, inputs_6B.to(model.device), cache)
        with torch.inference_mode():
            return self._steps[room][1](model)[: len(tokens)].clone()

    def _add(self, model: Transformer, room: Room, inputs_6B: Tensor, cache: KVCache) -> None:
        keys, values = self._window(room, cache)

        def step(model: Transformer) -> Tensor:
            return static_step(model, inputs_6B, keys, values)

        if len(self._steps) == _MOST_GRAPHS:
            del self._steps[next(iter(self._steps))]
        with torch.inference_mode():
            self._steps[room] = inputs_6B, self._capture(step, model)

    def _window(self, room: Room, like: KVCache) -> tuple[list[Tensor], list[Tensor]]:
        """Returns keys and values of each layer, [B, C, K, H]."""
        shape = (*room, *like.keys[0].shape[2:])
        tensors = [line[: math.prod(shape)].view(shape) for line in self._storage]
        half = len(tensors) // 2
        return tensors[:half], tensors[half:]

    def _take_in(self, cache: KVCache, room: Room) -> None:
        self._send_away()
        elements = math.prod((*room, *cache.keys[0].shape[2:]))
        if elements > self._storage.shape[1]:
            self._steps.clear()
            self._storage = self._storage.new_empty((len(self._storage), 0))  # frees the old one
            self._storage = self._storage.new_zeros((len(self._storage), elements))
        # What nobody has stored yet is multiplied by weights of 0, where a mask is a matrix.
        self._storage[:, :elements].zero_()
        keys, values = ([x[: cache.batch] for x in part] for part in self._window(room, cache))
        cache.move_to(keys, values)
        self._guest, self._lent = ref(cache), keys[0]

    def _send_away(self) -> None:
        guest = None if self._guest is None else self._guest()
        if guest is not None and guest.keys[0] is self._lent:
            keys, values = (list(map(torch.empty_like, x)) for x in (guest.keys, guest.values))
            guest.move_to(keys, values)
        self._lent = None


class GraphDecoder:
    """A model and its graphs; keeps the weights that these read."""

    most_rows = sys.maxsize

    def __init__(self, model: Transformer, graphs: Graphs) -> None:
        self.model, self.graphs = model, graphs
        self._weights = [x.detach() for x in chain(model.parameters(), model.buffers())]

    def step(
        self,
        tokens: Sequence[int],
        places: Sequence[Place],
        pads: Sequence[int],
        cache: KVCache,
    ) -> Tensor:
        """Adds one column to every row; see `ColumnDecoder`."""
        logits_BV = self.graphs.step(self.model, tokens, places, pads, cache)
        cache.advance(1)
        return logits_BV


_kept: WeakKeyDictionary[Transformer, Graphs] = WeakKeyDictionary()


def graph_decoder(model: Transformer, capture: Capture = capture_graph) -> GraphDecoder | None:
    """Returns the graphs of a model, or None where the model itself must be called."""
    reason = why_not(model)
    if reason is not None:
        logger.debug("columns are decoded by the model's own forward: %s", reason)
        return None
    graphs = _kept.get(model)
    if graphs is None or not graphs.fit(model):
        graphs = _kept[model] = Graphs(model, capture)
    return GraphDecoder(model, graphs)


def why_not(model: Transformer) -> str | None:
    """Returns why a graph cannot decode a model, or None when it can."""
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.device != model.device:
            return f"some of its weights are on {model.device}, others on {tensor.device}"
    return why_not_decodable(model)


def _round_up(columns: int) -> int:
    """Returns a room for columns: few different ones, and at most a quarter too large."""
    unit = max(_LEAST_COLUMNS, (1 << (columns - 1).bit_length()) // 8)
    return -(-columns // unit) * unit


def _layout_of_weights(model: Transformer) -> list[object]:
    """Returns what a graph has noted of each weight: where it is and how it lies there."""
    tensors = chain(model.parameters(), model.buffers())
    return [(x.data_ptr(), x.dtype, x.shape, x.stride()) for x in tensors]
