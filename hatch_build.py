"""Compiles the C++ part of glm_kernels at build and install time, where there is a compiler.

    python hatch_build.py       # compile in place, as `pip install -e .` does

The library has a plain C interface and needs neither torch nor Python to build. Without a compiler
the installation goes on, and glm_kernels uses PyTorch's own operations. `CXX` names another
compiler, `GLM_KERNELS_CXXFLAGS` adds flags.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand in an environment without hatchling
    BuildHookInterface = object

SOURCES = Path(__file__).parent / "kernels" / "src" / "glm_kernels" / "cpu" / "native"
LIBRARY = "libglm_kernels.so"
FLAGS = (
    "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti -ffp-contract=off "
    "-Wall -Wextra -Wno-maybe-uninitialized"
).split()
"""No contraction of a * b + c: every instruction set shall round the activations alike."""
AVX512 = "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c"
X86_FLAGS = {
    "avx2": "-mavx2 -mfma -mf16c",
    "avx512": f"{AVX512} -mprefer-vector-width=512",
    "amx": f"{AVX512} -mprefer-vector-width=512 -mamx-tile -mamx-int8",
}
"""Flags of a source whose name ends with the key; the others run on every processor."""


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc, valid-type]
    """Adds the library to a wheel, or puts it beside its sources for an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles before hatchling collects the files; what is up to date is taken as it is."""
        target = SOURCES / LIBRARY
        problem = None if is_current(target) else compile_library(target)
        if problem is not None:
            self.app.display_warning(f"glm_kernels has no compiled part: {problem}")
        elif version != "editable":
            build_data["force_include"][str(target)] = f"glm_kernels/cpu/native/{LIBRARY}"
            build_data["pure_python"] = False
            platform_tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform_tag}"  # ctypes: any Python 3 will do


def is_current(library: Path) -> bool:
    """Tells whether a library was compiled from the sources as they are now."""
    return library.exists() and source_hash().encode() in library.read_bytes()


def compile_library(target: Path, extra_flags: tuple[str, ...] = ()) -> str | None:
    """Compiles the library to `target`, in one step; returns why that failed, or None."""
    if sys.platform == "win32":
        return "its sources are for GCC and Clang, which Windows does not come with"
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    if shutil.which(compiler[0]) is None:
        return f"the C++ compiler {compiler[0]!r} was not found; install g++ or clang"
    flags = [*FLAGS, *shlex.split(os.environ.get("GLM_KERNELS_CXXFLAGS", "")), *extra_flags]
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / LIBRARY
        try:
            _compile(compiler, flags, built)
        except subprocess.CalledProcessError as error:
            return f"{error.cmd[0]} failed:\n{error.stderr[-2000:]}"
        shutil.copyfile(built, partial := target.with_suffix(f".{os.getpid()}"))
        partial.replace(target)
    return None


def _compile(compiler: list[str], flags: list[str], built: Path) -> None:
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    flags = [*flags, f'-DGLM_SOURCE_HASH="{source_hash()}"', *(["-DGLM_X86"] * on_x86)]
    commands, objects = [], []
    for source in sorted(SOURCES.glob("*.cpp")):
        path = source.stem.rpartition("_")[2]
        if path in X86_FLAGS and not on_x86:
            continue
        objects.append(str(built.with_name(f"{source.stem}.o")))
        own = X86_FLAGS.get(path, "").split()
        commands.append([*compiler, *flags, *own, "-c", str(source), "-o", objects[-1]])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    _run([*compiler, *flags, "-shared", *objects, "-o", str(built)])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def source_hash() -> str:
    """Returns what glm_kernels/cpu/library.py compares with the hash inside the library."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    reason = compile_library(SOURCES / LIBRARY)
    sys.exit(None if reason is None else f"glm_kernels has no compiled part: {reason}")
