"""A decode step in one call: the structs of native/decode_abi.h and what keeps their memory alive.

Letters: B rows, D hidden size, V vocabulary, S columns of a row of a cache, C columns of all texts,
K key/value heads, H head size, R pairs that rotate together.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from glm_kernels.cpu import library
from glm_kernels.cpu.decode_checks import (
    DTYPES,
    check_cache,
    check_columns,
    check_pages,
    size_of,
    unfit,
)
from glm_kernels.cpu.decode_pages import PageTable, RowPages
from glm_kernels.cpu.decode_structs import INT64, POINTER, Layer, Matrix, Model, Norm, Step
from glm_kernels.decode import (
    DecodeShape,
    DecodeWeights,
    LayerWeights,
    LinearWeights,
    NormWeights,
    StoredWeight,
    Table,
)

_NORMS = {"rms_norm": 0, "layer_norm": 1}
_ACTIVATIONS = {"gelu_tanh": 0, "gelu_erf": 1, "gelu_quick": 2, "silu": 3}
_GATES = {None: 0, "first": 1, "second": 2}
_ROPES = {None: 0, "halves": 1, "interleaved": 2, "2d": 3}
_RESIDUALS = {"pre": 0, "deepnorm": 1, "sandwich": 2}
_INPUTS = ("tokens", "pages", "lengths", "visible", "first", "positions")
"""What a step reads of each row: one integer, of positions two."""
_CACHE_LINE = 64
_MOST_HEAD_DIM = 256
_MOST_PLACES = 1 << 40
"""Of a model without tables of places."""


def unavailable(shape: DecodeShape, weights: DecodeWeights) -> str | None:
    """Return why a model cannot be decoded by the compiled step, or None when it can."""
    reason = library.unavailable()
    if reason is not None:
        return reason
    if shape.head_dim % 16 or shape.head_dim > _MOST_HEAD_DIM:
        return f"heads have {shape.head_dim} dims: not a multiple of 16 up to {_MOST_HEAD_DIM}"
    tables = [weights.words, *weights.positions]
    tables += [] if weights.queries is None else [weights.queries]
    problems = [unfit(linear.weight, multiplied=True) for linear in weights.linears()]
    problems += [unfit(table, multiplied=False) for table in tables]
    return next(filter(None, problems), None)


class CompiledDecoder:
    """A model as the compiled decode step reads it. It holds on to the weights it is given.

    Args:
        shape: of the model.
        weights: of the model; see `unavailable`.
    """

    def __init__(self, shape: DecodeShape, weights: DecodeWeights) -> None:
        self._weights, self._alive = weights, list[Tensor]()
        self._layers = (Layer * len(weights.layers))(*map(self._layer, weights.layers))
        self._model = Model(
            layers=ctypes.cast(self._layers, POINTER),
            final_norm=self._norm(weights.final_norm),
            head=self._matrix(weights.head),
            words=self._table(weights.words),
            places=(Matrix * 2)(*map(self._table, weights.positions)),
            num_layers=len(weights.layers),
            hidden_size=shape.hidden_size,
            num_heads=shape.num_heads,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            ffn_hidden_size=shape.ffn_hidden_size,
            eps=shape.norm_eps,
            score_scale=shape.head_dim**-0.5,
            residual_scale=shape.residual_scale,
            norm=_NORMS[shape.norm],
            activation=_ACTIVATIONS[shape.activation],
            gate=_GATES[shape.gate],
            rope=_ROPES[shape.rope],
            residual=_RESIDUALS[shape.residual],
            interleaved_heads=shape.interleaved_heads,
            top_query=weights.queries is not None,
        )
        if weights.queries is not None:
            self._model.queries = self._table(weights.queries)
        self._rope, self._num_words = shape.rope, self._model.words.out_features
        self._limits = self._places_below()
        self._step = Step()
        self._rows = self._isa = -1
        self._cache: tuple[object, ...] | None = None
        self._tables: list[PageTable] = []
        self._workspace = torch.empty(0, dtype=torch.uint8)
        pointers = INT64 * len(weights.layers)
        self._keys, self._values = pointers(), pointers()
        self._step.keys = ctypes.cast(self._keys, POINTER)
        self._step.values = ctypes.cast(self._values, POINTER)

    def use_tables(self, cos_SR: Tensor, sin_SR: Tensor) -> None:
        """Sets the rotary tables of positions 0, 1, ...; fp32."""
        tables = cos_SR.float().contiguous(), sin_SR.float().contiguous()
        self._rotary = tables
        self._model.cosines, self._model.sines = (table.data_ptr() for table in tables)
        self._model.pairs = tables[0].shape[1]
        self._limits = self._places_below(len(tables[0]))

    def step(
        self,
        tokens: Sequence[int],
        places: Sequence[tuple[int, int]],
        first: Sequence[int],
        keys_BSKH: Sequence[Tensor],
        values_BSKH: Sequence[Tensor],
        length: int,
        threads: int,
        front: int = 0,
    ) -> Tensor:
        """Adds one column to the texts of a cache.

        Args:
            tokens: of the column, one for each row.
            places: position and block position of each row's column.
            first: the first column that each row sees, but for those of `front`.
            keys_BSKH: of each layer, contiguous; the new column is stored at `length`.
            values_BSKH: as the keys.
            length: columns in the cache before this one.
            threads: that compute it, of PyTorch's; the result does not depend on them.
            front: so many columns at the start of the cache are seen by every row.

        Returns:
            Logits, fp32 [B, V].

        Raises:
            IndexError: a token or a place has no row in its table.
            ValueError: the rows do not belong together, or the cache is not one of this model with
                room for a column.
        """
        rows, top = len(tokens), keys_BSKH[0]
        check_columns(rows, len(places), first, front, length, top.shape[1])
        cache = (top.data_ptr(), values_BSKH[0].data_ptr(), len(keys_BSKH), top.shape, rows)
        if cache != self._cache:  # looked at once for each cache
            size = (rows, top.shape[1], self._model.num_kv_heads, self._model.head_dim)
            check_cache(keys_BSKH, values_BSKH, self._model.num_layers, size)
            columns = top.shape[1]
            self._tables = [
                PageTable.of_run(row * columns, columns, rows * columns) for row in range(rows)
            ]
            self._cache = cache
        where = RowPages(self._tables, [length] * rows, [length + 1] * rows, list(first), front)
        return self._run(tokens, places, where, keys_BSKH, values_BSKH, threads, rows)

    def step_pages(
        self,
        tokens: Sequence[int],
        places: Sequence[tuple[int, int]],
        pages: RowPages,
        keys_CKH: Sequence[Tensor],
        values_CKH: Sequence[Tensor],
        threads: int,
        num_logits: int | None = None,
    ) -> Tensor:
        """Adds columns to texts of any lengths, one in each row; rows may belong to one text.

        Args:
            tokens: of the columns.
            places: position and block position of each.
            pages: where the columns of each row's text are, and which of them it sees.
            keys_CKH: of each layer, contiguous; all columns of all texts.
            values_CKH: as the keys.
            threads: that compute it, of PyTorch's; the result does not depend on them.
            num_logits: so many rows, the first ones, are asked for logits; None: all.

        Returns:
            Logits, fp32 [num_logits, V].

        Raises:
            IndexError: a token or a place has no row in its table.
            ValueError: the rows do not belong together, or the cache is not one of this model with
                room for the columns.
        """
        rows, top = len(tokens), keys_CKH[0]
        num_logits = rows if num_logits is None else num_logits
        check_pages(rows, len(places), num_logits, pages, len(top))
        cache = (top.data_ptr(), values_CKH[0].data_ptr(), len(keys_CKH), top.shape)
        if cache != self._cache:
            size = (len(top), self._model.num_kv_heads, self._model.head_dim)
            check_cache(keys_CKH, values_CKH, self._model.num_layers, size)
            self._cache = cache
        return self._run(tokens, places, pages, keys_CKH, values_CKH, threads, num_logits)

    def _run(
        self,
        tokens: Sequence[int],
        places: Sequence[tuple[int, int]],
        pages: RowPages,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        threads: int,
        num_logits: int,
    ) -> Tensor:
        rows, step = len(tokens), self._step
        self._check(tokens, places)
        if rows != self._rows or self._isa != library.isa():
            self._prepare(rows)
        logits_BV = torch.empty(num_logits, self._model.head.out_features)
        self._keys[:] = [tensor.data_ptr() for tensor in keys]
        self._values[:] = [tensor.data_ptr() for tensor in values]
        self._inputs[:] = [
            *tokens,
            *(table.address for table in pages.tables),
            *pages.lengths,
            *pages.visible,
            *(pages.first or [0] * rows),
            *chain.from_iterable(places),
        ]
        step.logits, step.logit_rows = logits_BV.data_ptr(), num_logits
        step.front, step.threads = pages.front, threads
        step.cache_dtype = DTYPES[keys[0].dtype]
        library.library().glm_decode_step(ctypes.byref(self._model), ctypes.byref(step), self._isa)
        return logits_BV

    def _check(self, tokens: Sequence[int], places: Sequence[tuple[int, int]]) -> None:
        if min(tokens) < 0 or max(tokens) >= self._num_words:
            raise IndexError(f"tokens {list(tokens)} must lie in 0 to {self._num_words - 1}")
        position, block = self._limits
        for place in places:
            if not (0 <= place[0] < position and 0 <= place[1] < block):
                raise IndexError(
                    f"place {place} must be below {self._limits}, the rows of the tables"
                )

    def _places_below(self, num_rotary: int = 0) -> tuple[int, int]:
        """The rows that there are by position and by block position."""
        tables, queries = self._weights.positions, self._weights.queries
        by_position = [len(table) for table in (*tables[:1], queries) if table is not None]
        by_block = [len(table) for table in tables[1:]]
        by_position += [num_rotary] * (self._rope is not None)
        by_block += [num_rotary] * (self._rope == "2d")
        return min(by_position, default=_MOST_PLACES), min(by_block, default=_MOST_PLACES)

    def _prepare(self, rows: int) -> None:
        self._rows, self._isa = rows, library.isa()
        nbytes = library.library().glm_decode_workspace(ctypes.byref(self._model), rows, self._isa)
        if nbytes + _CACHE_LINE > len(self._workspace):
            self._workspace = torch.empty(nbytes + _CACHE_LINE, dtype=torch.uint8)
        start = self._workspace.data_ptr()
        self._step.workspace = start + -start % _CACHE_LINE
        self._step.rows = rows
        self._inputs = (INT64 * (rows * (len(_INPUTS) + 1)))()
        start = ctypes.addressof(self._inputs)
        for number, name in enumerate(_INPUTS):
            setattr(self._step, name, start + number * rows * ctypes.sizeof(INT64))

    def _layer(self, layer: LayerWeights) -> Layer:
        return Layer(
            input_norm=self._norm(layer.input_norm),
            attention_out_norm=self._norm(layer.attention_out_norm),
            post_attention_norm=self._norm(layer.post_attention_norm),
            mlp_out_norm=self._norm(layer.mlp_out_norm),
            query_key_value=self._matrix(layer.query_key_value),
            dense=self._matrix(layer.dense),
            up=self._matrix(layer.up),
            down=self._matrix(layer.down),
        )

    def _norm(self, norm: NormWeights | None) -> Norm:
        if norm is None:
            return Norm()
        return Norm(weight=self._vector(norm.weight), bias=self._vector(norm.bias))

    def _matrix(self, linear: LinearWeights) -> Matrix:
        matrix = self._table(linear.weight)
        matrix.bias = self._vector(linear.bias)
        return matrix

    def _table(self, weight: Table) -> Matrix:
        """Its tensors live as long as the weights, which are held on to."""
        rows, columns = size_of(weight)
        matrix = Matrix(in_features=columns, out_features=rows)
        if isinstance(weight, Tensor):
            matrix.values, matrix.dtype = weight.data_ptr(), DTYPES[weight.dtype]
            return matrix
        matrix.values, matrix.scales = weight.levels.data_ptr(), weight.scales.data_ptr()
        matrix.zeros = None if weight.zeros is None else weight.zeros.data_ptr()
        matrix.bits, matrix.group = weight.bits, weight.group or 0
        matrix.is_stored = isinstance(weight, StoredWeight)
        return matrix

    def _vector(self, vector: Tensor | None) -> int | None:
        """Address of a vector in fp32; a copy of it is kept where it is of another dtype."""
        if vector is None:
            return None
        floats = vector.detach().float().contiguous()
        self._alive.append(floats)
        return floats.data_ptr()
