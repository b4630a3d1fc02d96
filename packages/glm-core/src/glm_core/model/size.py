"""How large a model is, from its configuration alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glm_core.model.config import TransformerConfig
from glm_core.model.transformer import Transformer
from glm_core.quantize.layout import Layout

_DRAWS = frozenset({torch.nn.init.normal_, torch.nn.init.uniform_, torch.nn.init.kaiming_uniform_})


@dataclass(frozen=True, slots=True)
class PartSize:
    """Numbers of weights in a part of a model, by what quantization makes of them."""

    linear: int
    """In the matrices of blocks."""
    linear_rows: int
    """Output rows of those matrices."""
    rest: int
    """Embeddings, head, biases and norms: as a rule not quantized."""

    def num_bytes(self, element: int, layout: Layout | None) -> int:
        """Bytes of the part.

        Args:
            element: bytes of a weight that is not quantized.
            layout: of the quantized matrices, None where there are none.
        """
        if layout is None:
            return element * (self.linear + self.rest)
        scales = self.linear // layout.group if layout.group else self.linear_rows
        matrices = self.linear * layout.bits // 8 + layout.bytes_per_scale * scales
        return matrices + element * self.rest


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Numbers of weights of a model."""

    layer: PartSize
    """One of the layers, which are all alike."""
    num_layers: int
    outside: PartSize
    """Embeddings, final norm, head, top-query layer."""
    largest_linear: int
    """Weights of the largest matrix that quantization replaces."""

    def num_bytes(self, element: int, layout: Layout | None) -> int:
        """Bytes of the whole model; see `PartSize.num_bytes`."""
        layers = self.num_layers * self.layer.num_bytes(element, layout)
        return layers + self.outside.num_bytes(element, layout)


class _NoInit(TorchFunctionMode):
    """Leaves fresh parameters as they are.

    On the meta device there is nothing to draw, and torch would import its compiler for it, which
    takes two seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _DRAWS:
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


def meta_transformer(config: TransformerConfig) -> Transformer:
    """The model without storage: shapes and names, and nothing behind them."""
    with torch.device("meta"), _NoInit():
        return Transformer(config)


def count_parameters(config: TransformerConfig) -> int:
    """Parameters of the model; a tied head counts once."""
    return _count(meta_transformer(config))


def measure(config: TransformerConfig) -> ModelSize:
    """Counts the weights of a model by part."""
    model = meta_transformer(config)
    layer = _part(model.layers[0])
    above = [] if model.top_query is None else [_part(model.top_query.block)]
    in_blocks = len(model.layers) * (layer.linear + layer.rest)
    outside = PartSize(
        linear=sum(part.linear for part in above),
        linear_rows=sum(part.linear_rows for part in above),
        rest=_count(model) - in_blocks - sum(part.linear for part in above),
    )
    return ModelSize(
        layer=layer,
        num_layers=len(model.layers),
        outside=outside,
        largest_linear=max(weight.numel() for weight in _linears(model.layers[0])),
    )


def _part(block: nn.Module) -> PartSize:
    weights = _linears(block)
    linear = sum(weight.numel() for weight in weights)
    return PartSize(linear, sum(weight.shape[0] for weight in weights), _count(block) - linear)


def _linears(module: nn.Module) -> list[Tensor]:
    return [child.weight for child in module.modules() if isinstance(child, nn.Linear)]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
