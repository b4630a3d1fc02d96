"""Crates for Rust programs, built once of a folder that `cargo vendor` made."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codegeex.evaluate.runners.base import ToolMissing, shortened

VERSIONS = {"rand": "0.4", "regex": "1", "md5": "0.7"}
"""What HumanEval-X was written for."""

_MANIFEST = '[package]\nname = "crates"\nversion = "0.1.0"\nedition = "2021"\n\n[dependencies]\n'
_CONFIG = """\
[source.crates-io]
replace-with = "vendored"

[source.vendored]
directory = {folder}

[net]
offline = true
"""
_BUILD_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Crates:
    """Built crates."""

    folder: str = ""
    """Where they lie; empty where there are none."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """The .rlib file of each, by name."""

    def options(self) -> tuple[str, ...]:
        """Returns what tells rustc where they are."""
        if not self.libraries:
            return ()
        named = (f"{name}={path}" for name, path in self.libraries.items())
        externs = (part for one in named for part in ("--extern", one))
        return ("-L", f"dependency={self.folder}/debug/deps", *externs)


def build_crates(vendored: Path, compiler: str, into: Path) -> Crates:
    """Builds those of the crates that a folder has.

    Their build scripts run as the caller: the folder is the caller's own.

    Args:
        vendored: what `cargo vendor` made.
        compiler: path of rustc; cargo lies beside it.
        into: folder for what is built.

    Raises:
        ValueError: the folder has none of them.
        ToolMissing: cargo is not there, or fails.
    """
    known = {name for name in VERSIONS if list(vendored.glob(f"{name}*/Cargo.toml"))}
    if not known:
        raise ValueError(
            f"--rust-crates: {vendored} has none of {', '.join(VERSIONS)}: give the folder that "
            "`cargo vendor` made"
        )
    cargo = Path(compiler).with_name("cargo")
    if not cargo.exists():
        raise ToolMissing("cargo is not installed: apt-get install cargo")
    wanted = "".join(f'{name} = "{VERSIONS[name]}"\n' for name in VERSIONS if name in known)
    with tempfile.TemporaryDirectory(prefix="codegeex-crates-") as folder:
        source = Path(folder)
        (source / "src").mkdir()
        (source / "src" / "lib.rs").write_text("")
        (source / "Cargo.toml").write_text(_MANIFEST + wanted)
        (source / ".cargo").mkdir()
        quoted = f'"{vendored.resolve()}"'
        (source / ".cargo" / "config.toml").write_text(_CONFIG.format(folder=quoted))
        _run([str(cargo), "build", "--offline", "--target-dir", str(into)], source, compiler)
    libraries = {}
    for name in sorted(known):
        found = sorted((into / "debug" / "deps").glob(f"lib{name}-*.rlib"))
        if found:
            libraries[name] = str(found[0])
    return Crates(folder=str(into), libraries=libraries)


def _run(command: list[str], folder: Path, compiler: str) -> None:
    environment = {**os.environ, "RUSTC": compiler}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_BUILD_S
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if line.startswith("error")), lines[-1:] or "no word")
        raise ToolMissing(f"the crates of --rust-crates cannot be built: {shortened(str(said))}")
