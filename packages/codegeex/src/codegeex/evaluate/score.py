"""pass@k: the probability that one of k answers is right.

Source: arXiv 2107.03374, section 2.1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from codegeex.evaluate.verdict import Verdict


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """Returns the unbiased estimate for one problem: 1 - C(n - c, k) / C(n, k).

    Args:
        num_samples: n, at least k.
        num_passed: c, of them.
        k: answers that one may try.

    Raises:
        ValueError: there are fewer samples than k, for which no unbiased estimate exists.
    """
    if not 0 < k <= num_samples:
        raise ValueError(
            f"pass@{k} of {num_samples} samples: k must lie between 1 and the number of samples"
        )
    if num_samples - num_passed < k:
        return 1.0
    return 1.0 - math.prod(
        1.0 - k / i for i in range(num_samples - num_passed + 1, num_samples + 1)
    )


def mean_pass_at_k(
    verdicts: Mapping[str, Sequence[Verdict]], ks: Iterable[int], num_problems: int
) -> dict[int, float]:
    """Returns pass@k for each k that every problem has enough samples for.

    Args:
        verdicts: of every sample, by problem. `skipped` counts for nothing, and a problem of which
            nothing could be run is left out.
        ks: the k that are wanted.
        num_problems: how many should have samples; with fewer there is no pass@k at all.
    """
    if len(verdicts) < num_problems:
        return {}
    counts = []
    for found in verdicts.values():
        run = [verdict for verdict in found if verdict is not Verdict.skipped]
        if run:
            counts.append((len(run), run.count(Verdict.passed)))
    least = min((num for num, _ in counts), default=0)
    return {
        k: math.fsum(pass_at_k(num, passed, k) for num, passed in counts) / len(counts)
        for k in ks
        if k <= least
    }


def count_verdicts(verdicts: Mapping[str, Sequence[Verdict]]) -> dict[str, int]:
    """Returns how many samples ended how, in the order of `Verdict`; kinds without any are left
    out."""
    counts = Counter(verdict for found in verdicts.values() for verdict in found)
    return {str(verdict): counts[verdict] for verdict in Verdict if counts[verdict]}
