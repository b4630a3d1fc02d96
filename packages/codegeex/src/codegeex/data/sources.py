"""What the sources of a call hold, before anything is read."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codegeex.data.config import NAMED_SOURCES, STDLIB_CODE, PrepareConfig
from codegeex.data.files import RECORDS, SourceFile, entry_file, record_files, walk
from codegeex.data.installed import installed_files, installed_packages
from codegeex.data.reasons import Tally
from codegeex.languages import language_of_path


@dataclass(kw_only=True)
class Listing:
    """Files to read, in order."""

    sources: list[str]
    files: list[SourceFile] = field(default_factory=list)
    skipped: Tally = field(default_factory=Tally)
    versions: dict[str, str] = field(default_factory=dict)
    """Version of each repository, where one is known."""
    packages_left_out: list[dict[str, str]] = field(default_factory=list)
    """Installed packages whose licence is not permissive, or not told."""

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and times of the files."""
        rows = [[f.repository, f.name, f.size, f.changed, f.licence] for f in self.files]
        return {
            "sources": self.sources,
            "files": len(rows),
            "bytes": sum(file.size for file in self.files),
            "listing_sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        }


def list_sources(config: PrepareConfig) -> Listing:
    """Lists every source.

    Raises:
        ValueError: for a source that does not exist or cannot be read as code.
    """
    listing = Listing(sources=[_absolute(source) for source in config.sources])
    for source in config.sources:
        if source in NAMED_SOURCES:
            _add_installed(source == STDLIB_CODE, config, listing)
        else:
            listing.files.extend(_named(source, config, listing.skipped))
    return listing


def _add_installed(only_stdlib: bool, config: PrepareConfig, listing: Listing) -> None:
    packages = installed_packages()[:1] if only_stdlib else installed_packages()
    permissive = [package for package in packages if package.permissive]
    listing.files.extend(installed_files(permissive, config, listing.skipped))
    listing.versions |= {package.name: package.version for package in permissive}
    listing.packages_left_out.extend(
        {"name": package.name, "version": package.version, "licence": package.licence}
        for package in packages
        if not package.permissive
    )


def _named(source: str, config: PrepareConfig, skipped: Tally) -> list[SourceFile]:
    path = Path(source).expanduser()
    if not path.exists():
        raise ValueError(
            f"source {source!r} does not exist: name a folder of code, a .jsonl or .jsonl.gz "
            f"file, or {' or '.join(NAMED_SOURCES)}"
        )
    label = path.resolve().name
    if path.is_dir():
        return list(walk(path, label, config, skipped)) or record_files(path, label)
    if not path.name.endswith(RECORDS) and language_of_path(path.name) is None:
        raise ValueError(
            f"source {source!r}: its name tells no programming language; name a source file, a "
            "folder, or a .jsonl or .jsonl.gz file"
        )
    file = entry_file(str(path), path.name, path.resolve().parent.name, config, skipped)
    return [file] if file else []


def _absolute(source: str) -> str:
    return source if source in NAMED_SOURCES else os.path.abspath(os.path.expanduser(source))
