"""How the next column of some texts is computed faster than by the model's own forward.

Letters: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from glm_core.infer.fast_decode import fast_decoder
from glm_core.infer.graph_decode import graph_decoder
from glm_core.infer.kv_cache import KVCache
from glm_core.model.transformer import Transformer


class ColumnDecoder(Protocol):
    """A model ready to decode."""

    most_rows: int
    """More rows than this are as fast through the model itself."""

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
            pads: columns on the left of each row that it does not see; a tuned prefix, which
                stands left of them and which every row sees, not counted.
            cache: of the columns before; has room for one more, which is stored and counted.

        Returns:
            Logits after the column, [B, V].
        """


def column_decoder(model: Transformer) -> ColumnDecoder | None:
    """Returns the fast step of the model's device: CUDA graphs on a GPU, compiled C++ on the CPU.

    It sees the weights as they are now. None where the model itself must be called.
    """
    return graph_decoder(model) if model.device.type == "cuda" else fast_decoder(model)
