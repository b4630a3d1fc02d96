"""What the numbers should reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A bound for a ratio (at least) or for a size (at most)."""

    bound: float
    unit: str = "x"
    at_most: bool = False

    def __str__(self) -> str:
        sign, space = ("<=" if self.at_most else ">="), "" if self.unit == "x" else " "
        return f"{sign} {self.bound:.4g}{space}{self.unit}"

    def verdict(self, value: float) -> str:
        """`met`, or by how much it is missed; both sides as they are printed, two decimals."""
        value, bound = round(value, 2), round(self.bound, 2)
        missed = value / bound - 1 if self.at_most else 1 - value / bound
        return "met" if missed <= 0 else f"missed by {_percent(missed)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


READ_BANDWIDTH = {"cpu": Goal(0.88), "cuda": Goal(0.80)}
"""Share of the bandwidth of reading memory that a product of one row reaches, by device."""
TORCH_INT4 = Goal(1.2)
"""Against torch.compile of torch's int4 product, on a GPU."""
FUSED = Goal(1.0)
"""Against the best of the peers."""
ATTENTION = Goal(1.3)
"""Against flex_attention, and SDPA with a dense mask."""
WEIGHTS = Goal(4.2, "GB", at_most=True)
"""ChatGLM-6B in int4."""
