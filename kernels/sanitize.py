"""Runs the tests of the compiled kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

    python kernels/sanitize.py [more arguments of pytest]

Compiles the library once more, into a temporary folder, and loads that one. Python itself is not
instrumented, so the sanitizer's runtime goes in first (LD_PRELOAD), and leaks, which Python has at
its end, are not looked for. The first finding ends the run.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLAGS = (
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)
TESTS = "tests/glm_kernels/cpu/"


def main() -> int:
    specification = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    if specification is None or specification.loader is None:
        raise FileNotFoundError(ROOT / "hatch_build.py")
    builder = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(builder)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libglm_kernels.so"
        problem = builder.compile_library(library, FLAGS)
        if problem is not None:
            print(f"error: cannot build with sanitizers: {problem}", file=sys.stderr)
            return 1
        environment = {
            "LD_PRELOAD": " ".join(runtime(name) for name in ("libasan.so", "libubsan.so")),
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "GLM_KERNELS_LIBRARY": str(library),
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS]
        command += ["-k", "not missing", *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, env=os.environ | environment).returncode


def runtime(name: str) -> str:
    """Path of a runtime library of the compiler."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    command = [compiler, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
