"""Cross-entropy of a linear head, without ever holding all the logits."""

from __future__ import annotations

from torch import Tensor

from glm_kernels import reference
from glm_kernels.registry import dispatch, register


def fused_linear_cross_entropy(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    labels_M: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    chunk_size: int | None = None,
) -> Tensor:
    """Sum of the cross-entropies of ``hidden @ weight.T + bias`` against the labels.

    Args:
        hidden_MD: [M, D].
        weight_VD: [V, D]; may be the embedding table itself.
        labels_M: [M] int64 in [0, V), or ignore_index.
        bias: [V] or None.
        ignore_index: rows with this label are dropped before anything is computed.
        chunk_size: rows whose logits exist at a time; None chooses it.

    Returns:
        the sum over the kept rows in nats, an fp32 scalar (fp64 for fp64 inputs).
    """
    out: Tensor = dispatch("fused_linear_cross_entropy", hidden_MD.device.type)(
        hidden_MD, weight_VD, labels_M, bias, ignore_index, chunk_size
    )
    return out


register("fused_linear_cross_entropy", "torch")(reference.fused_linear_cross_entropy)
