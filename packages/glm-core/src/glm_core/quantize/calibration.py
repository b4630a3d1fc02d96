"""The layers of a checkpoint one after the other, each with the inputs that a text gives it.

In memory are one block, one Hessian, and the hidden states of the text: samples * window *
hidden_size numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from glm_core.checkpoint.weight_reader import WeightReader
from glm_core.quantize.gptq import Hessian
from glm_core.quantize.layout import Layout
from glm_core.quantize.linear import QuantizedLinear
from glm_core.quantize.matrix import QuantizedMatrix
from glm_core.quantize.quantize import EMBEDDINGS, HEAD

if TYPE_CHECKING:
    from glm_core.attention import PreparedAttention
    from glm_core.data.batch import Batch, Ints, Sample
    from glm_core.model.config import TransformerConfig
    from glm_core.model.positions import Rotation
    from glm_core.model.transformer import Block
    from glm_core.tokenizer.protocol import Tokenizer

logger = logging.getLogger(__name__)

_TOKENS_PER_BATCH = 4096

Quantizer = Callable[[str, Tensor, Tensor], QuantizedMatrix]
"""Quantizes a parameter: its name, its numbers, and the mean of x x^T over its inputs."""


def calibration_samples(
    config: TransformerConfig,
    tokenizer: Tokenizer,
    documents: Sequence[Ints],
    count: int,
    window: int,
    seed: int,
) -> list[Sample]:
    """Draws samples from documents, as `evaluate.perplexity` cuts them; whole windows if it can.

    Args:
        count: how many, at most.
        window: tokens of each.

    Raises:
        ValueError: the documents have no text.
    """
    from glm_core.evaluate.perplexity import document_samples

    window = min(window, config.max_position_embeddings)
    every = document_samples(config, tokenizer, documents, window)
    if not every:
        raise ValueError("the calibration text is empty: give one of some thousand words")
    longest = max(map(len, every))
    whole = [sample for sample in every if len(sample) == longest]
    if len(whole) < count:
        logger.warning(
            "the calibration text gives %d samples of %d tokens, %d were asked for: a longer text "
            "calibrates better",
            len(every),
            longest,
            count,
        )
        whole = every
    order = np.random.default_rng(seed).permutation(len(whole))[:count]
    return [whole[index] for index in order]


@dataclass(slots=True)
class _Stream:
    """A batch on its way through the layers."""

    hidden_BTD: Tensor
    positions_B2T: Tensor
    attend: PreparedAttention
    rotate: Rotation | None


class LayerWalk:
    """Quantizes the layers of a checkpoint, each with inputs from the quantized ones below it.

    Within a block the projections come in the order in which they compute.

    Args:
        reader: gives every parameter as numbers.
        layouts: modules to quantize.
        samples: the calibration text.
        pad_id: never seen: samples are batched with others of their length.
    """

    def __init__(
        self,
        reader: WeightReader,
        layouts: Mapping[str, Layout],
        samples: Sequence[Sample],
        pad_id: int,
    ) -> None:
        self._reader, self._layouts = reader, layouts
        self._model = reader.empty_model().eval()
        self._load(
            name
            for name in reader.checkpoint.names()
            if not name.startswith(("layers.", "top_query.block.", f"{HEAD}."))
        )
        self._streams = [self._begin(batch) for batch in _batches(samples, pad_id)]

    @torch.no_grad()
    def run(self, quantizer: Quantizer) -> None:
        """Calls `quantizer` for every matrix that is to be quantized, the embeddings excepted."""
        model = self._model
        for index, block in enumerate(model.layers):
            self._quantize_block(f"layers.{index}", block, quantizer, _in_layer)
        for stream in self._streams:
            stream.hidden_BTD = model.final_norm(stream.hidden_BTD)
        if model.top_query is not None:
            top, embedding = model.top_query.block, model.top_query.embedding
            self._quantize_block(
                "top_query.block", top, quantizer, lambda block, s: _on_top(block, s, embedding)
            )
        head = HEAD if model.output_layer is not None else EMBEDDINGS
        if head in self._layouts:
            self._quantize_head(head, quantizer)

    def _begin(self, batch: Batch) -> _Stream:
        from glm_core.model.positions import as_2d_positions, build_rotation

        model, ids_BT = self._model, batch.input_ids.to(self._reader.device)
        positions = as_2d_positions(batch.position_ids.to(ids_BT.device), ids_BT, 0)
        with torch.no_grad():
            return _Stream(
                model.embed(ids_BT, positions),
                positions,
                model.prepare_mask(batch.mask, ids_BT, 0),
                build_rotation(model.config, positions, model.compute_dtype),
            )

    def _quantize_block(
        self,
        name: str,
        block: nn.Module,
        quantizer: Quantizer,
        forward: Callable[[Any, _Stream], Tensor],
    ) -> None:
        prefix = f"{name}."
        self._load(n for n in self._reader.checkpoint.names() if n.startswith(prefix))
        inner = [n.removeprefix(prefix) for n in self._layouts if n.startswith(prefix)]
        for leaf in inner:
            linear = block.get_submodule(leaf)
            assert isinstance(linear, nn.Linear)
            hessian = Hessian(linear.in_features, self._reader.device)
            hook = linear.register_forward_pre_hook(lambda _, x, into=hessian: into.add(x[0]))
            for stream in self._streams:
                forward(block, stream)
            hook.remove()
            self._replace(prefix + leaf, linear, quantizer, hessian)
        for stream in self._streams:
            stream.hidden_BTD = forward(block, stream)
        block.to("meta")

    def _replace(
        self, name: str, linear: nn.Linear, quantizer: Quantizer, hessian: Hessian
    ) -> None:
        """Quantizes a linear layer of the block at hand."""
        parameter = f"{name}.weight"
        weight = self._reader.checkpoint.read(parameter).to(self._reader.device)
        matrix = quantizer(parameter, weight, _mean(hessian, name))
        new = QuantizedLinear(
            linear.in_features, linear.out_features, matrix.layout, bias=False, device="meta"
        )
        new.bias = linear.bias
        new.set_matrix(matrix)
        new.pack()
        parent, _, leaf = name.rpartition(".")
        setattr(self._model.get_submodule(parent), leaf, new)

    def _quantize_head(self, name: str, quantizer: Quantizer) -> None:
        hessian = Hessian(self._model.config.hidden_size, self._reader.device)
        for stream in self._streams:
            hessian.add(stream.hidden_BTD)
        parameter = f"{name}.weight"
        weight = self._reader.checkpoint.read(parameter).to(self._reader.device)
        quantizer(parameter, weight, _mean(hessian, name))

    def _load(self, names: Iterator[str]) -> None:
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensors |= self._reader.read(name)
        self._model.load_state_dict(tensors, strict=False, assign=True)


def _mean(hessian: Hessian, name: str) -> Tensor:
    try:
        return hessian.mean()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _in_layer(block: Block, stream: _Stream) -> Tensor:
    out: Tensor = block(stream.hidden_BTD, stream.attend, stream.rotate)
    return out


def _on_top(block: Block, stream: _Stream, embedding: nn.Embedding) -> Tensor:
    query_BTD = embedding(stream.positions_B2T[:, 0])
    out: Tensor = block(stream.hidden_BTD, stream.attend, None, None, query_BTD)
    return out


def _batches(samples: Sequence[Sample], pad_id: int) -> Iterator[Batch]:
    """Batches of samples of one length, so that no padding is ever an input."""
    from glm_core.data.batch import collate

    by_length: dict[int, list[Sample]] = {}
    for sample in samples:
        by_length.setdefault(len(sample), []).append(sample)
    for length, same in sorted(by_length.items()):
        count = max(1, _TOKENS_PER_BATCH // length)
        for begin in range(0, len(same), count):
            yield collate(same[begin : begin + count], length, pad_id)
