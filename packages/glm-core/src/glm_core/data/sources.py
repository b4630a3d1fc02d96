"""Where documents come from, behind one small protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from glm_core.data.documents import Document, split_of
from glm_core.data.installed_text import (
    RULES_VERSION,
    default_roots,
    installed_documents,
    installed_versions,
    python_version,
    stdlib_roots,
)
from glm_core.extras import require

INSTALLED_TEXT = "installed-text"
STDLIB_TEXT = "stdlib-text"
TEXT_SUFFIXES = (".txt", ".md")
_MANY_FILES = 20
_CHUNK_CHARS = 16_384


class Source(Protocol):
    """Something that gives documents in a fixed order."""

    def documents(self) -> Iterator[Document]:
        """All documents, each with its split."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What decides the documents, as JSON; quick, since it is computed at every start."""
        ...


def open_source(location: str, text_field: str, heldout_fraction: float, workers: int) -> Source:
    """The source that `location` names.

    Args:
        location: `installed-text`, `stdlib-text`, a file, or a folder.
        text_field: field or column with the text, where there are fields.
        heldout_fraction: share of documents that are held out.
        workers: processes that parse, where parsing is slow.

    Raises:
        ValueError: if there is nothing there, or nothing that can be read.
    """
    if location in (INSTALLED_TEXT, STDLIB_TEXT):
        return InstalledTextSource(heldout_fraction, workers, only_stdlib=location == STDLIB_TEXT)
    path = Path(location).expanduser()
    if not path.exists():
        raise ValueError(
            f"data.source={location!r} does not exist: name a text, jsonl or parquet file, a "
            f"folder of such files, {INSTALLED_TEXT} or {STDLIB_TEXT}"
        )
    if path.is_dir() and _is_saved_dataset(path):
        return SavedDatasetSource(path, text_field, heldout_fraction)
    files = _files_of(path)
    if not files:
        raise ValueError(
            f"data.source={location!r} holds no .txt, .md, .jsonl or .parquet file: "
            "point it to the folder with the corpus"
        )
    return FileSource(path, files, text_field, heldout_fraction)


@dataclass(frozen=True)
class InstalledTextSource:
    """English technical prose of this machine's Python; see `installed_text.py`.

    `only_stdlib` leaves the installed packages out: a small corpus that is ready in seconds.
    """

    heldout_fraction: float
    workers: int = 1
    only_stdlib: bool = False

    def documents(self) -> Iterator[Document]:
        """Topics, docstrings and package descriptions."""
        return installed_documents(
            stdlib_roots() if self.only_stdlib else default_roots(),
            workers=self.workers,
            heldout_fraction=self.heldout_fraction,
        )

    def fingerprint(self) -> dict[str, Any]:
        """Versions of Python and of every distribution."""
        return {
            "source": STDLIB_TEXT if self.only_stdlib else INSTALLED_TEXT,
            "rules": RULES_VERSION,
            "heldout_fraction": self.heldout_fraction,
            "python": python_version(),
            "distributions": {} if self.only_stdlib else installed_versions(),
        }


@dataclass(frozen=True)
class FileSource:
    """Text, markdown, jsonl and parquet files.

    A record of a jsonl or parquet file is a document. A text file is a document too, except that
    long files, or all files when there are only a few, are cut between paragraphs, so that even
    one file has something to hold out.
    """

    root: Path
    files: list[Path]
    text_field: str
    heldout_fraction: float

    def documents(self) -> Iterator[Document]:
        """All documents, files in sorted order."""
        for path in self.files:
            relative = path.name if path == self.root else path.relative_to(self.root).as_posix()
            for index, text in enumerate(self._texts(path)):
                if text.strip():
                    name = f"{relative}#{index}"
                    yield Document(name, text, split_of(name, self.heldout_fraction))

    def fingerprint(self) -> dict[str, Any]:
        """Name, size and time of the last change of every file."""
        stats = [(str(path), path.stat()) for path in self.files]
        listing = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        return {
            "source": str(self.root.resolve()),
            "text_field": self.text_field,
            "heldout_fraction": self.heldout_fraction,
            "files": len(listing),
            "bytes": sum(stat.st_size for _, stat in stats),
            "listing_sha256": hashlib.sha256(json.dumps(listing).encode()).hexdigest(),
        }

    def _texts(self, path: Path) -> Iterator[str]:
        if path.suffix == ".jsonl":
            return (
                _text_of(record, self.text_field, f"{path}:{line}")
                for line, record in read_jsonl(path)
            )
        if path.suffix == ".parquet":
            return _read_parquet(path, self.text_field)
        return _cut(_read_text(path), self._chunk_size())

    def _chunk_size(self) -> int:
        if len(self.files) >= _MANY_FILES:
            return 4 * _CHUNK_CHARS
        total = sum(path.stat().st_size for path in self.files)
        return min(max(total // 100, 512), _CHUNK_CHARS)


@dataclass(frozen=True)
class SavedDatasetSource:
    """A folder written by `datasets`' `save_to_disk`; a dataset dict's train split is read."""

    folder: Path
    text_field: str
    heldout_fraction: float

    def documents(self) -> Iterator[Document]:
        """One document per row."""
        for index, text in enumerate(self._rows()):
            if text and text.strip():
                name = f"{self.folder.name}#{index}"
                yield Document(name, text, split_of(name, self.heldout_fraction))

    def fingerprint(self) -> dict[str, Any]:
        """The hash that `datasets` keeps beside the data."""
        states = sorted(self.folder.rglob("state.json"))
        return {
            "source": str(self.folder.resolve()),
            "text_field": self.text_field,
            "heldout_fraction": self.heldout_fraction,
            "states": [state.read_text(encoding="utf-8") for state in states],
        }

    def _rows(self) -> Iterator[str]:
        require("datasets", extra="data")
        from datasets import DatasetDict, load_from_disk

        try:
            loaded = load_from_disk(str(self.folder))
        except OSError as error:
            raise _unreadable(self.folder, error) from error
        if isinstance(loaded, DatasetDict):
            if "train" not in loaded:
                raise ValueError(
                    f"{self.folder} has splits {', '.join(loaded)} but no train: "
                    "point data.source to one split's folder"
                )
            loaded = loaded["train"]
        if self.text_field not in loaded.column_names:
            raise _missing_field(str(self.folder), self.text_field, loaded.column_names)
        for index, text in enumerate(loaded[self.text_field]):
            yield _text_or_empty(text, self.text_field, f"{self.folder}, row {index}")


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every non-empty line.

    Raises:
        ValueError: naming file and line, for a line that is no JSON object.
    """
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}:{number} is not valid JSON ({error.msg}): fix or remove the line"
            ) from error
        if not isinstance(record, dict):
            raise ValueError(
                f"{path}:{number} is a {type(record).__name__}, not an object: write "
                '{"text": ...} on each line'
            )
        yield number, record


def _lines(path: Path) -> Iterator[str]:
    file = _open_text(path)
    with file:
        while True:
            try:
                line = file.readline()
            except UnicodeDecodeError as error:
                raise _not_utf8(path) from error
            except OSError as error:
                raise _unreadable(path, error) from error
            if not line:
                return
            yield line


def _text_of(record: dict[str, Any], text_field: str, place: str) -> str:
    if text_field not in record:
        raise _missing_field(place, text_field, list(record))
    return _text_or_empty(record[text_field], text_field, place)


def _text_or_empty(text: Any, text_field: str, place: str) -> str:
    """The text of a record; an empty one, which is left out, where it is null."""
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ValueError(
            f"{place}: field {text_field!r} is a {type(text).__name__}, not a string: set "
            "data.text_field to the field that holds the text"
        )
    return text


def _missing_field(place: str, text_field: str, available: list[str]) -> ValueError:
    return ValueError(
        f"{place} has no field {text_field!r} (it has {', '.join(available) or 'none'}): set "
        "data.text_field to the one that holds the text"
    )


def _not_utf8(path: Path) -> ValueError:
    return ValueError(f"{path} is not UTF-8 text: convert it, or leave it out of data.source")


def _unreadable(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"{path} cannot be read ({error.strerror or error}): copy it again, or leave it out of "
        "data.source"
    )


def _open_text(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_text(path: Path) -> str:
    with _open_text(path) as file:
        try:
            return file.read()
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error
        except OSError as error:
            raise _unreadable(path, error) from error


def _read_parquet(path: Path, text_field: str) -> Iterator[str]:
    require("pyarrow", extra="data")
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(path)
    except (arrow.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{path} is not a readable parquet file ({error}): copy it again, or leave it out of "
            "data.source"
        ) from error
    if text_field not in file.schema_arrow.names:
        raise _missing_field(str(path), text_field, file.schema_arrow.names)
    batches = file.iter_batches(batch_size=1024, columns=[text_field])
    while True:
        try:
            batch = next(batches, None)
        except (arrow.ArrowInvalid, OSError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): copy it again, or leave it out of data.source"
            ) from error
        if batch is None:
            return
        for text in batch.column(0).to_pylist():
            yield _text_or_empty(text, text_field, str(path))


def _cut(text: str, chunk_chars: int) -> Iterator[str]:
    """Pieces of about `chunk_chars` characters, cut at blank lines.

    A piece four times as long as that has none: it is cut at line ends, or else between words.
    """
    for piece in _cut_at(text, "\n\n", chunk_chars):
        for lines in _cut_at(piece, "\n", chunk_chars) if _is_long(piece, chunk_chars) else [piece]:
            yield from _cut_at(lines, " ", chunk_chars) if _is_long(lines, chunk_chars) else [lines]


def _is_long(text: str, chunk_chars: int) -> bool:
    return len(text) >= 4 * chunk_chars


def _cut_at(text: str, separator: str, chunk_chars: int) -> Iterator[str]:
    """Pieces of at least `chunk_chars` characters but the last; joined they are the text."""
    piece: list[str] = []
    size = 0
    for part in text.split(separator):
        piece.append(part)
        size += len(part) + len(separator)
        if size >= chunk_chars:
            yield separator.join(piece)
            piece, size = [], 0
    if piece:
        yield separator.join(piece)


def _is_saved_dataset(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _files_of(path: Path) -> list[Path]:
    suffixes = (*TEXT_SUFFIXES, ".jsonl", ".parquet")
    if path.is_file():
        return [path] if path.suffix in suffixes else []
    return sorted(file for file in path.rglob("*") if file.suffix in suffixes and file.is_file())
