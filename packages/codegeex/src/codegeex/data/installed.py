"""`installed-code`: Python source that any machine with Python already has.

The standard library, and every installed distribution whose metadata names a permissive licence.
Nothing is imported. This repository's own packages are left out.
"""

from __future__ import annotations

import importlib.metadata
import os
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codegeex.data.config import PrepareConfig
from codegeex.data.files import SourceFile, entry_file, walk
from codegeex.data.licences import is_permissive, licence_of
from codegeex.data.reasons import Tally
from glm_core.data.installed_text import OWN_DISTRIBUTIONS, python_version

STDLIB = "stdlib"
STDLIB_LICENCE = "PSF-2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One distribution."""

    name: str
    version: str
    licence: str
    """As its metadata tells; empty where they do not."""
    permissive: bool


def installed_packages() -> list[Package]:
    """The standard library and every installed distribution, in the order of their names."""
    packages = {
        distribution.metadata["Name"].lower(): _package(distribution)
        for distribution in importlib.metadata.distributions()
        if distribution.metadata["Name"]
        and distribution.metadata["Name"].lower() not in OWN_DISTRIBUTIONS
    }
    stdlib = Package(name=STDLIB, version=python_version(), licence=STDLIB_LICENCE, permissive=True)
    return [stdlib, *(packages[name] for name in sorted(packages))]


def installed_files(
    packages: Sequence[Package], config: PrepareConfig, skipped: Tally
) -> Iterator[SourceFile]:
    """Python files of packages; each is a repository."""
    for package in packages:
        if package.name == STDLIB:
            folder = Path(sysconfig.get_paths()["stdlib"])
            files = walk(
                folder, STDLIB, config, skipped, licence=STDLIB_LICENCE, is_repository=True
            )
            yield from (file for file in files if file.name.endswith(".py"))
        else:
            yield from _distribution_files(package, config, skipped)


def _distribution_files(
    package: Package, config: PrepareConfig, skipped: Tally
) -> Iterator[SourceFile]:
    files = importlib.metadata.distribution(package.name).files or []
    names = sorted({path.as_posix() for path in files if path.suffix == ".py"})
    names = [name for name in names if not name.startswith(("..", "/"))]
    root = str(importlib.metadata.distribution(package.name).locate_file(""))
    for name in sorted(names, key=_folder_first):
        file = entry_file(
            os.path.join(root, name), name, package.name, config, skipped, licence=package.licence
        )
        if file:
            yield file


def _folder_first(name: str) -> tuple[str, str]:
    folder, _, last = name.rpartition("/")
    return folder, last


def _package(distribution: importlib.metadata.Distribution) -> Package:
    metadata = distribution.metadata
    licence = licence_of(
        metadata["License-Expression"] or "",
        metadata["License"] or "",
        metadata.get_all("Classifier") or [],
    )
    return Package(
        name=metadata["Name"],
        version=distribution.version,
        licence=licence,
        permissive=bool(licence) and is_permissive(licence),
    )
