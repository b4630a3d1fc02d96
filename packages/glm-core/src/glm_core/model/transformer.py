"""The one transformer of the GLM family.

Letters: B batch, T query columns, S key columns, N query heads, K key/value heads, H head size,
D hidden size, F feed-forward size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from glm_core.attention import (
    Attend,
    Causal,
    MaskRequest,
    MaskSpec,
    Prefixed,
    PreparedAttention,
    Scaling,
    check_name,
    prepare_attention,
)
from glm_core.attention.reference import reference_backend
from glm_core.model.config import Activation, GeluForm, QkvLayout, Residual, TransformerConfig
from glm_core.model.init import init_weights
from glm_core.model.norm import build_norm
from glm_core.model.positions import (
    LearnedPositions,
    Rotation,
    as_2d_positions,
    build_rotation,
)
from glm_core.model.quick_gelu import quick_gelu_in_steps
from glm_core.model.top_query import TopQuery
from glm_core.quantize.linear import QuantizedEmbedding
from glm_core.quantize.weight import QuantizedWeight
from glm_kernels import fused_linear_cross_entropy, geglu, gelu, swiglu

if TYPE_CHECKING:
    from glm_core.tune.prefix import PrefixEncoder


class KVCacheProtocol(Protocol):
    """Keys and values of the columns seen so far."""

    length: int
    """Columns already stored."""

    def append(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new columns of a layer; returns all of its keys and values, [B, S, K, H]."""

    def advance(self, count: int) -> None:
        """Counts the columns that every layer has stored."""


class Attention(nn.Module):
    """Grouped-query self-attention."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        heads = config.num_heads + 2 * config.num_kv_heads
        self.query_key_value = nn.Linear(
            config.hidden_size, heads * config.head_dim, bias=config.qkv_bias
        )
        self.dense = nn.Linear(
            config.num_heads * config.head_dim, config.hidden_size, bias=config.dense_bias
        )
        coefficient = float(layer + 1) if config.layer_number_scaling else config.attention_scale
        self.scaling = Scaling(1.0 / math.sqrt(config.head_dim), coefficient)

    def split(self, qkv_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cuts the fused projection into q [B, T, N, H] and k, v [B, T, K, H]."""
        N, K, H = self.config.num_heads, self.config.num_kv_heads, self.config.head_dim
        if self.config.qkv_layout == QkvLayout.concatenated:
            qkv_BTXH = rearrange(qkv_BTE, "b t (x h) -> b t x h", h=H)
            q_BTNH, k_BTKH, v_BTKH = torch.split(qkv_BTXH, [N, K, K], dim=2)
            return q_BTNH, k_BTKH, v_BTKH
        qkv_BTKXH = rearrange(qkv_BTE, "b t (k x h) -> b t k x h", k=K, h=H)
        q_BTNH = rearrange(qkv_BTKXH[..., :-2, :], "b t k g h -> b t (k g) h")
        return q_BTNH, qkv_BTKXH[..., -2, :], qkv_BTKXH[..., -1, :]

    def forward(
        self,
        x_BTD: Tensor,
        attend: Attend,
        rotate: Rotation | None,
        kv_cache: KVCacheProtocol | None,
        query_BTD: Tensor | None = None,
    ) -> Tensor:
        q_BTNH, k_BSKH, v_BSKH = self.split(self.query_key_value(x_BTD))
        if query_BTD is not None:
            # The whole fused projection for its query rows: one layer of forty does so, and the
            # weight stays whole for whatever splits or quantizes it.
            q_BTNH, _, _ = self.split(self.query_key_value(query_BTD))
        if rotate is not None:
            q_BTNH, k_BSKH = rotate(q_BTNH), rotate(k_BSKH)
        if kv_cache is not None:
            k_BSKH, v_BSKH = kv_cache.append(self.layer, k_BSKH, v_BSKH)
        dropout = self.config.attention_dropout if self.training else 0.0
        out_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, self.scaling, dropout)
        out_BTD: Tensor = self.dense(out_BTNH.flatten(2))
        return out_BTD


class FeedForward(nn.Module):
    """Two projections around an activation, gated or not."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.ffn_hidden_size * (2 if config.is_gated else 1)
        self.dense_h_to_4h = nn.Linear(config.hidden_size, width, bias=config.mlp_bias)
        self.dense_4h_to_h = nn.Linear(
            config.ffn_hidden_size, config.hidden_size, bias=config.mlp_bias
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        inner: Tensor = self.dense_h_to_4h(x_BTD)
        approximate: Literal["tanh", "none"] = (
            "tanh" if self.config.gelu_form == GeluForm.tanh else "none"
        )
        if self.config.activation == Activation.swiglu:
            inner = swiglu(inner)
        elif self.config.activation == Activation.geglu:
            inner = geglu(inner, self.config.gate_half.value, approximate)
        elif self.config.gelu_form == GeluForm.quick and self.config.reference_numerics:
            inner = quick_gelu_in_steps(inner)
        elif self.config.gelu_form == GeluForm.quick:
            inner = gelu(inner, "quick")
        else:
            inner = gelu(inner, approximate)
        out_BTD: Tensor = self.dense_4h_to_h(inner)
        return out_BTD


class Block(nn.Module):
    """Attention and feed-forward, each joined to the residual stream as `config.residual` says."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.residual = config.residual
        self.residual_scale = config.residual_scale
        self.input_norm = build_norm(config)
        self.attention = Attention(config, layer)
        self.post_attention_norm = build_norm(config)
        self.mlp = FeedForward(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        if config.residual == Residual.sandwich:
            self.attention_out_norm = build_norm(config)
            self.mlp_out_norm = build_norm(config)

    def forward(
        self,
        x_BTD: Tensor,
        attend: Attend,
        rotate: Rotation | None,
        kv_cache: KVCacheProtocol | None = None,
        query_BTD: Tensor | None = None,
    ) -> Tensor:
        """Returns the residual stream after this block; `query_BTD` replaces the queries' input."""
        normed = self.input_norm(x_BTD)
        out = self.attention(normed, attend, rotate, kv_cache, query_BTD)
        if self.residual == Residual.sandwich:
            out = self.attention_out_norm(out)
        if self.residual == Residual.deepnorm:
            x_BTD = self.join(x_BTD, normed, out)
            normed = self.post_attention_norm(x_BTD)
        else:
            normed, x_BTD = self.post_attention_norm(self.dropout(out), x_BTD)
        out = self.mlp(normed)
        if self.residual == Residual.sandwich:
            out = self.mlp_out_norm(out)
        return self.join(x_BTD, normed, out)

    def join(self, x_BTD: Tensor, normed_BTD: Tensor, out_BTD: Tensor) -> Tensor:
        """Adds a sub-layer's output to the residual stream."""
        out_BTD = self.dropout(out_BTD)
        if self.residual == Residual.deepnorm:
            return normed_BTD * self.residual_scale + out_BTD
        return x_BTD + out_BTD


class Transformer(nn.Module):
    """Token ids in, hidden states out; `logits` and `loss` read the hidden states."""

    def __init__(self, config: TransformerConfig, attention_backend: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.choose_attention(attention_backend)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = None if config.is_rotary else LearnedPositions(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.final_norm = build_norm(config)
        self.top_query = (
            TopQuery(config, Block(config, config.num_layers)) if config.top_query_layer else None
        )
        self.output_layer = (
            None
            if config.tie_embeddings
            else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        )
        self.prefix: PrefixEncoder | None = None
        """P-tuning v2: learned keys and values that every column sees (glm_core.tune.prefix)."""

    def forward(
        self,
        input_ids_BT: Tensor,
        position_ids: Tensor | None = None,
        mask: MaskSpec | None = None,
        kv_cache: KVCacheProtocol | None = None,
    ) -> Tensor:
        """Runs the stack.

        Args:
            input_ids_BT: int64 token ids.
            position_ids: int64 [B, 2, T] or [B, T]; None counts on from the cache's length.
            mask: what sees what, in absolute columns, those of a prefix not counted; None is
                Causal().
            kv_cache: when given, the tokens stand right of the columns already in it. The first of
                them are the prefix, where the model has one.

        Returns:
            Hidden states for the head, [B, T, D]: after the final norm and the top-query layer.
        """
        prefix_len = 0 if self.prefix is None else self.prefix.prefix_len
        cached = 0 if kv_cache is None else kv_cache.length
        offset = max(cached - prefix_len, 0)
        position_ids_B2T = as_2d_positions(position_ids, input_ids_BT, offset)
        attend = self.prepare_mask(mask or Causal(), input_ids_BT, offset)
        if self.prefix is not None and cached == 0:
            kv_cache = self.prefix.in_front_of(kv_cache, self.compute_dtype)
        hidden_BTD = self.stack(input_ids_BT, position_ids_B2T, attend, kv_cache)
        if kv_cache is not None:
            kv_cache.advance(input_ids_BT.shape[1])
        return hidden_BTD

    def stack(
        self,
        input_ids_BT: Tensor,
        position_ids_B2T: Tensor,
        attend: Attend,
        kv_cache: KVCacheProtocol | None,
    ) -> Tensor:
        """Runs all blocks on columns whose mask is prepared; returns hidden states, [B, T, D]."""
        x_BTD = self.embed(input_ids_BT, position_ids_B2T)
        rotate = build_rotation(self.config, position_ids_B2T, self.compute_dtype)
        for block in self.layers:
            x_BTD = block(x_BTD, attend, rotate, kv_cache)
        hidden_BTD: Tensor = self.final_norm(x_BTD)
        if self.top_query is not None:
            hidden_BTD = self.top_query(hidden_BTD, position_ids_B2T, attend, kv_cache)
        return hidden_BTD

    def embed(self, input_ids_BT: Tensor, position_ids_B2T: Tensor) -> Tensor:
        """Returns word (and learned position) embeddings, [B, T, D]."""
        x_BTD: Tensor = self.word_embeddings(input_ids_BT)
        shrink = self.config.embedding_grad_scale
        if shrink != 1.0:
            # Source: arXiv 2210.02414, section 3.3 (embedding layer gradient shrink).
            # This form adds an exact 0, where e * a + detach(e) * (1 - a) would round e.
            x_BTD = x_BTD.detach() + (x_BTD - x_BTD.detach()) * shrink
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(position_ids_B2T)
        out_BTD: Tensor = self.dropout(x_BTD)
        return out_BTD

    def choose_attention(self, backend: str) -> None:
        """Names the attention backend of all layers; `auto` is the fastest that serves a request.

        Raises:
            ValueError: the name is unknown, or the config has an order of operations of its own.
        """
        check_name(backend)
        is_reference = self.config.reference_numerics
        self.reference_attention = (
            reference_backend(self.config.score_order, backend) if is_reference else None
        )
        self.attention_backend = backend

    def prepare_mask(self, mask: MaskSpec, input_ids_BT: Tensor, offset: int) -> PreparedAttention:
        """Chooses the attention backend and builds its mask, once for all layers."""
        if self.prefix is not None:
            mask, offset = Prefixed(mask, self.prefix.prefix_len), offset + self.prefix.prefix_len
        batch, length = input_ids_BT.shape
        device, dtype = input_ids_BT.device, self.compute_dtype
        heads = self.config.num_heads // self.config.num_kv_heads, self.config.head_dim
        request = MaskRequest(mask, batch, length, offset + length, offset, device, dtype, *heads)
        if self.reference_attention is not None:
            backend = self.reference_attention
            return PreparedAttention(backend, backend.prepare(request))
        dropout = self.config.attention_dropout if self.training else 0.0
        return prepare_attention(request, self.attention_backend, dropout)

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of queries and keys: the weights', or autocast's."""
        if torch.is_autocast_enabled(self.device.type):
            return torch.get_autocast_dtype(self.device.type)
        return self.dtype

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights that are not quantized; norms may be wider (norm_precision)."""
        table: nn.Module = self.word_embeddings
        if isinstance(table, QuantizedEmbedding):
            return table.like.dtype
        assert isinstance(table.weight, Tensor)
        return table.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        weight = self.final_norm.weight  # never quantized
        assert isinstance(weight, Tensor)
        return weight.device

    def blocks(self) -> Iterator[Block]:
        """Yields every block: the layers and, last, that of the top-query layer."""
        for block in self.layers:
            assert isinstance(block, Block)
            yield block
        if self.top_query is not None:
            yield self.top_query.block

    @property
    def head(self) -> nn.Module:
        """What holds the weight that turns hidden states into logits."""
        return self.word_embeddings if self.output_layer is None else self.output_layer

    @property
    def head_weight_VD(self) -> Tensor:
        """The weight that turns hidden states into logits; a quantized one as numbers."""
        head = self.head
        if isinstance(head, QuantizedWeight):
            return head.dequantize(self.compute_dtype)
        assert isinstance(head.weight, Tensor)
        return head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns next-token scores, [..., V], for hidden states [..., D]."""
        head = self.head
        if isinstance(head, QuantizedWeight):
            return head.multiply(hidden)
        return nn.functional.linear(hidden, self.head_weight_VD)

    def loss(self, hidden_BTD: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Sums the cross-entropy over all columns that have a label.

        Args:
            labels_BT: int64; the token each column predicts (never shifted here), -100 for none.

        Returns:
            The sum in nats, fp32 scalar, and the number of labels, int64 scalar.
        """
        total = fused_linear_cross_entropy(
            hidden_BTD.flatten(0, 1), self.head_weight_VD, labels_BT.flatten()
        )
        return total, (labels_BT != -100).sum()

    def init_weights(self, seed: int) -> None:
        """Draws fresh weights, the same for the same seed; see glm_core.model.init."""
        init_weights(self, seed)
