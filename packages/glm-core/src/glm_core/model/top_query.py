"""The top-query layer: a block whose queries know the place of the next token and nothing else.

Source: arXiv 2303.17568, section 2.1 (CodeGeeX).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from glm_core.model.config import TransformerConfig

if TYPE_CHECKING:
    from glm_core.attention import Attend
    from glm_core.model.transformer import Block, KVCacheProtocol


class TopQuery(nn.Module):
    """Stands above the final norm, which is its input and its residual stream alike.

    Queries are projected from the raw table, without norm; keys and values from the normed
    hidden states, as in every block. Its output goes to the head without another norm.

    Args:
        block: an ordinary block of the model, numbered after the last layer.
    """

    def __init__(self, config: TransformerConfig, block: Block) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.block = block

    def forward(
        self,
        x_BTD: Tensor,
        position_ids_B2T: Tensor,
        attend: Attend,
        kv_cache: KVCacheProtocol | None,
    ) -> Tensor:
        """Returns hidden states for the head, [B, T, D]."""
        query_BTD = self.embedding(position_ids_B2T[:, 0])
        out_BTD: Tensor = self.block(x_BTD, attend, None, kv_cache, query_BTD)
        return out_BTD
