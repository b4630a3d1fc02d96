"""One large file from the hub into the cache of its library, going on where it stopped.

The library itself starts a file again when the program was stopped in the middle of it. Here the
part that has arrived stays beside the finished files, and only the rest is asked for. The price is
plain HTTP: transfers by the hub's own protocol are faster, and cannot go on.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from glm_core.checkpoint.files import CheckpointError
from glm_core.progress import Progress

logger = logging.getLogger(__name__)

_SHA256 = re.compile(r"[0-9a-f]{64}")


def download_file(repo: str, name: str, commit: str) -> None:
    """Downloads a file, so that the library finds it in its cache.

    Args:
        repo: "org/name".
        name: of the file in it.
        commit: hash of the revision.

    Raises:
        CheckpointError: what has arrived is not the file that the hub promised.
        Exception: whatever the library raises when the hub refuses, or the connection breaks; what
            has arrived by then stays.
    """
    from filelock import FileLock
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers = build_hf_headers()
    url = hf_hub_url(repo, name, revision=commit)
    file = get_hf_file_metadata(url, headers=dict(headers))
    if file.etag is None or file.size is None or file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        return  # left to the library
    if urlparse(file.location).netloc != urlparse(url).netloc:
        headers.pop("authorization", None)  # not for the storage that the hub points to
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE, folder, "blobs", file.etag)
    lock = Path(constants.HF_HUB_CACHE, ".locks", folder, f"{file.etag}.lock")
    for parent in (blob.parent, lock.parent):
        parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if blob.exists():
            return
        part = blob.with_name(f"{file.etag}.incomplete")
        start = _size_of_part(part, file.size)
        with part.open("ab") as out:
            http_get(
                file.location,
                out,
                resume_size=start,
                headers=headers,
                expected_size=file.size,
                tqdm_class=_log_lines(f"downloading {name}"),
            )
        if start:
            _check(part, file.etag, name)
        part.replace(blob)


def _size_of_part(part: Path, size: int) -> int:
    """Bytes that have arrived before; more than there should be is no part of this file."""
    found = part.stat().st_size if part.exists() else 0
    if found > size:
        part.unlink()
        return 0
    if found:
        logger.info("going on after %.1f of %.1f MB", found / 1e6, size / 1e6)
    return found


def _check(part: Path, etag: str, name: str) -> None:
    """Large files are named by their sha256; one that was put together is compared with it."""
    if _SHA256.fullmatch(etag) is None:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != etag:
        part.unlink()
        raise CheckpointError(
            f"{name} arrived damaged (its sha256 is wrong) and was deleted: try again"
        )


def _log_lines(what: str) -> Any:
    """A class that the library takes for a progress bar, and that logs lines instead."""

    class LogLines:
        def __init__(self, total: float | None = None, initial: float = 0, **_: Any) -> None:
            self._progress = Progress(what, ((total or 0) - initial) / 1e6, "MB")

        def update(self, count: float | None = 1) -> None:
            self._progress.add((count or 0) / 1e6)

        def __enter__(self) -> LogLines:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing is left to close."""

    return LogLines
