"""Every kernel compiles for GPUs that are not here, fits their shared memory, and spills little.

The interpreter takes what the compiler refuses: a size of 1, for one, is no tensor there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "compile_only.py"
SHARED = {"cuda:80": 163 * 1024, "cuda:90": 227 * 1024, "hip:gfx942": 64 * 1024}
"""Bytes of shared memory that a block can have. Source: CUDA programming guide, AMD CDNA3 ISA."""

MOST_SPILLED = 512
"""Bytes of a thread; measured at most 144, in the gradients of attention in fp32."""


def compile_all(target: str, dtype: str, folder: Path, *names: str) -> list[str]:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder), "TRITON_DEFAULT_FP_FUSION": "1"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(SCRIPT), target, dtype, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def check(lines: list[str], target: str) -> None:
    for line in lines:
        shared, spilled = re.search(r"shared=(\d+)", line), re.search(r"spilled=(\d+)", line)
        assert shared and int(shared[1]) <= SHARED[target], line
        assert spilled is None or int(spilled[1]) <= MOST_SPILLED, line


def test_kernels_compile_when_the_gpu_is_elsewhere(tmp_path):
    lines = compile_all("cuda:90", "bfloat16", tmp_path, "norms", "decode")
    assert {line.split()[0] for line in lines} == {"_forward", "_backward", "forward", "combine"}
    check(lines, "cuda:90")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("target", SHARED)
def test_all_kernels_compile_for_every_target(tmp_path, target, dtype):
    lines = compile_all(target, dtype, tmp_path)
    assert len(lines) > 60
    check(lines, target)
