"""llama.cpp's own server: built from the sources that its Python package brings along."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from glm_core.bench.environments import Environment
from glm_core.bench.ggml_peers import LLAMA_CPP, environment_of

PROGRAM = "llama-server"
SETTINGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    # its page would be fetched from the network while it is built
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)


@dataclass(frozen=True)
class LlamaServer:
    """The program, and how it comes to be there."""

    environment: Environment
    """Of llama.cpp; the program is compiled with the same flags and kept in it."""

    @property
    def path(self) -> Path:
        """The program."""
        return self.environment.folder / "bin" / PROGRAM

    def reason(self) -> str:
        """Why it cannot be used yet; empty when it can."""
        missing = self.environment.reason()
        if not missing and not self.path.exists():
            missing = f"{PROGRAM} is not built: --setup-peers builds it into {self.path.parent}"
        return missing

    def set_up(self) -> str:
        """Builds it if it is not there yet; returns why that failed, or an empty string."""
        failed = self.environment.set_up()
        if failed or not self.reason():
            return failed
        with tempfile.TemporaryDirectory(prefix="glm-bench-") as folder:
            built = self._build(Path(folder))
        return "" if built else f"building {PROGRAM} failed, as {self.environment.log} tells"

    def version(self) -> str:
        """What the program calls itself, and the package that its sources are of."""
        run = subprocess.run([self.path, "--version"], capture_output=True, text=True, check=True)
        told = (run.stdout + run.stderr).splitlines()
        own = next((line for line in told if line.startswith("version")), "version unknown")
        return f"{own.strip()}, sources of {self.environment.compiled}"

    def _build(self, folder: Path) -> bool:
        sources, build, run = folder / "sources", folder / "build", self.environment.run
        package = self.environment.compiled
        of_sources = ["--no-deps", "--no-cache-dir", "--no-binary", package.partition("==")[0]]
        pip = [str(self.environment.python), "-m", "pip"]
        cmake = str(self.path.parent / "cmake")
        if not (
            run([*pip, "install", "cmake"])
            and run([*pip, "download", *of_sources, "--dest", str(folder), package])
        ):
            return False
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(sources, filter="data")
        (llama,) = sources.glob("*/vendor/llama.cpp")
        jobs = str(os.cpu_count() or 1)
        if not (
            run([cmake, "-S", str(llama), "-B", str(build), *SETTINGS])
            and run([cmake, "--build", str(build), "--target", PROGRAM, "--parallel", jobs])
        ):
            return False
        shutil.copy2(build / "bin" / PROGRAM, self.path)
        return True


def llama_server(with_amx: bool) -> LlamaServer:
    """llama.cpp's server.

    Args:
        with_amx: whether the processor's AMX is to be used.
    """
    environment = environment_of(LLAMA_CPP, with_amx)
    assert environment is not None
    return LlamaServer(environment)
