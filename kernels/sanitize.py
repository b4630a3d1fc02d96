"""Runs the compiled kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

    python kernels/sanitize.py [more arguments of pytest]

Compiles the library once more, into a temporary folder, loads that one, and runs the tests that
call it: those of the library itself, the fuzzing of the ops that it has, and the decode step of
whole models. Python itself is not instrumented, so the sanitizers' runtime goes in first
(LD_PRELOAD), and leaks, which Python has at its end, are not looked for. The first finding ends the
run.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
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
RUNTIMES = ("libasan.so", "libubsan.so")
TESTS = (
    "tests/glm_kernels/cpu",
    "tests/glm_kernels/fuzz",
    "tests/glm_core/infer/test_fast_decode.py",
)
LEFT_OUT = "not missing and not triton"
"""Of the tests: those that start a process without a library, and the interpreter of GPU code."""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libglm_kernels.so"
        problem = build(library)
        if problem is not None:
            print(f"error: {problem}", file=sys.stderr)
            return 1
        environment = {
            "LD_PRELOAD": " ".join(map(runtime, RUNTIMES)),
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "GLM_KERNELS_LIBRARY": str(library),
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
        command += ["-k", LEFT_OUT, *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, env=os.environ | environment).returncode


def build(library: Path) -> str | None:
    """Compile the library with sanitizers; returns why that cannot be, or None."""
    specification = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    if specification is None or specification.loader is None:
        raise FileNotFoundError(ROOT / "hatch_build.py")
    builder = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(builder)
    problem: str | None = builder.compile_library(library, FLAGS)
    if problem is not None:
        return f"the library cannot be built with sanitizers: {problem}"
    missing = [name for name in RUNTIMES if not Path(runtime(name)).is_absolute()]
    if missing:
        return (
            f"the compiler {compiler()!r} comes without {' and '.join(missing)}: use g++ with its "
            "sanitizers, `CXX=g++ make sanitize`"
        )
    return None


def compiler() -> str:
    """The command that compiles C++."""
    return (shlex.split(os.environ.get("CXX", "")) or ["c++"])[0]


def runtime(name: str) -> str:
    """Path of a runtime library of the compiler; its name alone where there is none."""
    command = [compiler(), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
