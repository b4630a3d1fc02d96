"""Decoding a column of some texts by one call of the compiled step, where the model allows it.

Letters: B rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from glm_core.infer.decodable import why_not_decodable
from glm_core.infer.kv_cache import KVCache
from glm_core.model.config import (
    Activation,
    Norm,
    Position,
    QkvLayout,
    RopeLayout,
    TransformerConfig,
)
from glm_core.model.positions import build_rotation
from glm_core.model.transformer import Block, Transformer
from glm_core.quantize import QuantizedEmbedding
from glm_kernels.cpu.decode import CompiledDecoder, unavailable
from glm_kernels.cpu.decode_pages import RowPages
from glm_kernels.decode import (
    DecodeShape,
    DecodeWeights,
    LayerWeights,
    LinearWeights,
    NormWeights,
    StoredWeight,
)
from glm_kernels.measured import table_of

logger = logging.getLogger(__name__)

MOST_ROWS = 64
"""More rows than this are as fast through the model itself; where nothing was measured."""
DECODE_STEP = "decode_step"
"""Under which a table of measured choices has that number, by class of weights."""
_FIRST_TABLE = 256
_SMALL_BYTES = 1 << 28
"""A model of less weight than this may be faster on one thread."""
_TRIED = 2
"""Columns that each number of threads computes to be timed, at the start of a period."""
_FIRST_PERIOD, _LONGEST_PERIOD = 64, 1024
"""Columns; every period is twice as long as the one before."""


class ThreadChoice:
    """Chooses between all threads and one, by the time that columns take.

    The threads of a small model meet every few microseconds. On a machine that is busy with other
    work one of them is always not running, and the others wait for it: 1 thread was measured to be
    12 times as fast as 2 there, where on an idle machine 2 are faster. The result is the same.

    Args:
        most: threads of PyTorch.
        is_small: whether waiting could be longer than computing; otherwise all threads are used.
    """

    def __init__(self, most: int, is_small: bool) -> None:
        self.best = most
        self._tries = (1, most) * _TRIED if is_small and most > 1 else ()
        self._seconds = dict.fromkeys(self._tries, 0.0)
        self._column, self._period = 0, _FIRST_PERIOD

    @contextmanager
    def timed(self) -> Iterator[int]:
        """Says how many threads compute the next column, and notes what it takes."""
        threads, start = self.next(), time.perf_counter()
        yield threads
        self.add(threads, time.perf_counter() - start)

    def next(self) -> int:
        """Returns how many threads compute the next column."""
        return self._tries[self._column] if self._column < len(self._tries) else self.best

    def add(self, threads: int, seconds: float) -> None:
        """Notes what that column took."""
        if not self._tries:
            return
        if self._column < len(self._tries):
            self._seconds[threads] += seconds
        self._column += 1
        if self._column == len(self._tries):
            self.best = min(self._seconds, key=self._seconds.__getitem__)
        elif self._column == self._period:
            self._column, self._period = 0, min(2 * self._period, _LONGEST_PERIOD)
            self._seconds = dict.fromkeys(self._tries, 0.0)


class FastDecoder:
    """A model ready for the compiled step. It sees the weights as they are when it is made.

    Raises:
        ValueError: the model cannot be decoded so; see `why_not`.
    """

    most_rows: int
    """More rows than this are as fast through the model itself."""

    def __init__(self, model: Transformer) -> None:
        reason = why_not(model)
        if reason is not None:
            raise ValueError(f"the compiled decode step cannot run this model: {reason}")
        self.model = model
        weights = _weights(model)
        self._decoder = CompiledDecoder(_shape(model.config), weights)
        self._num_positions = 0
        self.most_rows = most_rows(weights)
        nbytes = sum(linear.nbytes for linear in weights.linears())
        self._threads = ThreadChoice(torch.get_num_threads(), nbytes < _SMALL_BYTES)

    def step(
        self,
        tokens: Sequence[int],
        places: Sequence[tuple[int, int]],
        pads: Sequence[int],
        cache: KVCache,
    ) -> Tensor:
        """Adds one column to every row.

        Args:
            tokens: of the column, [B].
            places: position and block position of each.
            pads: columns on the left of each row that it does not see, behind those of a tuned
                prefix.
            cache: of the columns before; has room for one more, which is stored and counted.

        Returns:
            Logits after the column, fp32 [B, V].

        Raises:
            IndexError: a token or a place is none of the model's.
        """
        front = 0 if self.model.prefix is None else self.model.prefix.prefix_len
        assert cache.length >= front, "the first columns of a cache are those of the prefix"
        first = [front + pad for pad in pads] if front else pads
        self._cover(max(map(max, places)))
        with self._threads.timed() as threads:
            logits_BV = self._decoder.step(
                tokens, places, first, cache.keys, cache.values, cache.length, threads, front
            )
        cache.advance(1)
        return logits_BV

    def step_pages(
        self,
        tokens: Sequence[int],
        places: Sequence[tuple[int, int]],
        pages: RowPages,
        keys_CKH: Sequence[Tensor],
        values_CKH: Sequence[Tensor],
        num_logits: int,
    ) -> Tensor:
        """Adds columns to texts of any lengths; see `CompiledDecoder.step_pages`."""
        self._cover(max(map(max, places)))
        with self._threads.timed() as threads:
            return self._decoder.step_pages(
                tokens, places, pages, keys_CKH, values_CKH, threads, num_logits
            )

    def _cover(self, position: int) -> None:
        """Makes the rotary tables reach a position."""
        if position < self._num_positions or not self.model.config.is_rotary:
            return
        self._num_positions = max(2 * position, _FIRST_TABLE)
        positions = torch.arange(self._num_positions).expand(1, 2, -1)
        rotation = build_rotation(self.model.config, positions)
        assert rotation is not None
        self._decoder.use_tables(rotation.cos[0], rotation.sin[0])


def most_rows(weights: DecodeWeights) -> int:
    """Returns up to how many rows the compiled step is the faster way: measured, else built in."""
    measured = table_of(torch.device("cpu")).configs.get(DECODE_STEP, {})
    return measured.get(weight_class(weights), {}).get("most_rows", MOST_ROWS)


def weight_class(weights: DecodeWeights) -> str:
    """Returns how a table of measured choices calls such weights: b with the bits of a number."""
    weight = weights.layers[0].up.weight
    return f"b{8 * weight.element_size() if isinstance(weight, Tensor) else weight.bits}"


def fast_decoder(model: Transformer) -> FastDecoder | None:
    """Returns the compiled step for a model, or None where the model itself must be called."""
    reason = why_not(model)
    if reason is None:
        return FastDecoder(model)
    logger.debug("columns are decoded by the model's own forward: %s", reason)
    return None


def why_not(model: Transformer) -> str | None:
    """Returns why the compiled step cannot decode a model, or None when it can."""
    reason = why_not_decodable(model)
    if reason is not None:
        return reason
    try:
        weights = _weights(model)
    except ValueError as error:
        return str(error)
    return unavailable(_shape(model.config), weights)


def _shape(config: TransformerConfig) -> DecodeShape:
    activation: Any = "silu"
    if config.activation != Activation.swiglu:
        activation = f"gelu_{config.gelu_form.value}"
    gate: Any = "first" if config.activation == Activation.swiglu else config.gate_half.value
    rope: Any = None
    if config.position == Position.rope_2d:
        rope = "2d"
    elif config.position == Position.rope:
        rope = "interleaved" if config.rope_layout == RopeLayout.interleaved else "halves"
    residual: Any = config.residual.value
    return DecodeShape(
        hidden_size=config.hidden_size,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        ffn_hidden_size=config.ffn_hidden_size,
        norm="rms_norm" if config.norm == Norm.rmsnorm else "layer_norm",
        norm_eps=config.norm_eps,
        activation=activation,
        gate=gate if config.is_gated else None,
        rope=rope,
        residual=residual,
        residual_scale=config.residual_scale,
        interleaved_heads=config.qkv_layout == QkvLayout.interleaved,
    )


def _weights(model: Transformer) -> DecodeWeights:
    """Raises ValueError where a matrix has no form that the step reads."""
    positions, top = model.positions, model.top_query
    tables = (
        [positions.position_embeddings, positions.block_position_embeddings] if positions else []
    )
    return DecodeWeights(
        words=_table(model.word_embeddings),
        positions=tuple(_table(table) for table in tables if table is not None),
        queries=None if top is None else _table(top.embedding),
        layers=tuple(map(_layer, model.blocks())),
        final_norm=_norm(model.final_norm),
        head=_linear(model.head),
    )


def _layer(block: Block) -> LayerWeights:
    has_out_norms = hasattr(block, "attention_out_norm")
    return LayerWeights(
        input_norm=_norm(block.input_norm),
        query_key_value=_linear(block.attention.query_key_value),
        dense=_linear(block.attention.dense),
        attention_out_norm=_norm(block.attention_out_norm) if has_out_norms else None,
        post_attention_norm=_norm(block.post_attention_norm),
        up=_linear(block.mlp.dense_h_to_4h),
        down=_linear(block.mlp.dense_4h_to_h),
        mlp_out_norm=_norm(block.mlp_out_norm) if has_out_norms else None,
    )


def _table(module: Any) -> Any:
    if not isinstance(module, QuantizedEmbedding) or module.packed is not None:
        return _linear(module).weight
    matrix = module.matrix()
    return StoredWeight(
        levels=matrix.levels,
        scales=matrix.scale,
        zeros=matrix.zero,
        bits=matrix.layout.bits,
        group=matrix.layout.group or None,
    )


def _norm(norm: Any) -> NormWeights:
    return NormWeights(norm.weight, getattr(norm, "bias", None))


def _linear(module: Any) -> LinearWeights:
    weight = getattr(module, "packed", None)
    if weight is None:
        weight = module.weight
    if weight is None or (isinstance(weight, Tensor) and not weight.is_floating_point()):
        raise ValueError("a quantized matrix is not in the kernels' order")
    return LinearWeights(
        weight.detach() if isinstance(weight, Tensor) else weight, getattr(module, "bias", None)
    )
