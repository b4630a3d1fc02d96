"""Time of imports beside that of `import torch`: fresh interpreters, alternating, CPU seconds.

CPU seconds (user and system), since wall time also counts what other programs do to the cores.

.venv/bin/python packages/glm-core/benchmarks/bench_import.py
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

BASELINE = "import torch"
CASES = [
    "import torch, glm_core",
    "import glm_core.model.transformer",
    "import glm_core.train.trainer",
    "import glm_core.infer.generate",
]
ROUNDS = 9


def seconds(statement: str) -> float:
    """CPU time of a fresh interpreter that runs `statement`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


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
