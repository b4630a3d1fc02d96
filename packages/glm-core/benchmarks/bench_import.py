"""Time of imports beside the time of `import torch`, each in fresh interpreters, alternating.

.venv/bin/python packages/glm-core/benchmarks/bench_import.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

BASELINE = "import torch"
CASES = [
    "import torch, glm_core",
    "import glm_core.model.transformer",
    "import glm_core.train.trainer",
    "import glm_core.infer.generate",
]
ROUNDS = 9


def seconds(statement: str) -> float:
    """Wall time of a fresh interpreter that runs `statement`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the median of each case and its ratio to the baseline."""
    cases = [BASELINE, *CASES]
    for case in cases:
        seconds(case)  # fills the file cache
    rounds = [[seconds(case) for case in cases] for _ in range(ROUNDS)]
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    for case, median in zip(cases, medians, strict=True):
        print(f"{median:6.3f} s  {median / medians[0]:5.2f}x  {case}")


if __name__ == "__main__":
    main()
