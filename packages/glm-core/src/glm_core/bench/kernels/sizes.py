"""The sizes at which kernels are measured."""

from __future__ import annotations

from dataclasses import dataclass

SIX_BILLION = ((4096, 4096), (4096, 27392), (13696, 4096), (4096, 65024))
"""(in, out) of ChatGLM2-6B and ChatGLM3-6B: attention output, gate and value, back, head."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What `measure` builds its tensors by."""

    products: tuple[tuple[int, int], ...] = SIX_BILLION
    rows: tuple[int, ...] = (1, 8, 16, 64, 512)
    """Rows of x in weight-only products."""
    most_multiplications: float = 1e11
    """A product of more is left out: no prompt multiplies 512 rows by the head."""
    megabytes: int = 640
    """Each contender reads copies of its weight of more than this by turns. All others read as much
    before it comes back to one of them, so that no cache still holds it."""

    tokens: int = 512
    hidden: int = 4096
    ffn: int = 13696
    heads: int = 32
    kv_heads: int = 2
    head_dim: int = 128

    scores: tuple[int, int] = (8, 512)
    """Heads, and queries and keys, of softmax."""
    image: tuple[int, int, int] = (4, 320, 32)
    """Batch, channels, and height and width, of group norm."""
    patches: tuple[int, int, int] = (4, 256, 1152)
    """Batch, patches and width of a diffusion transformer."""
    attention: tuple[int, int, int, int] = (1, 1024, 16, 128)
    """Batch, length, heads, head dim."""
    columns: int = 2048
    """Keys in the cache when a token is decoded."""
    loss: tuple[int, int, int] = (1024, 512, 65024)
    """Rows, hidden size and vocabulary of cross-entropy."""
    loss_memory: tuple[int, int, int] = (4096, 256, 65024)
    """The same where its memory is measured: the logits are much larger than the gradients."""


CPU = Sizes()
CUDA = Sizes(
    megabytes=1024,
    tokens=8192,
    scores=(32, 2048),
    image=(16, 320, 64),
    patches=(64, 256, 1152),
    attention=(4, 4096, 32, 128),
    loss=(8192, 4096, 65024),
)
