"""First stage: files become documents that passed the filters, with their signatures.

A part is a few MB of files, or a stretch of a .jsonl file. It leaves NNNNN.text (texts, one after
another), NNNNN.signatures (uint32, 128 each), and last NNNNN.json (what is known of each document,
and what was left out).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from codegeex.data import filters
from codegeex.data.config import PrepareConfig
from codegeex.data.files import SourceFile
from codegeex.data.headers import forbids, without_notice
from codegeex.data.imports import imported
from codegeex.data.minhash import NUM_PERMUTATIONS, Signature, signature
from codegeex.data.parts import write_whole
from codegeex.data.reasons import Reason, Tally
from codegeex.data.records import Record, read_record
from codegeex.languages import find_language, language_of_path

PART_BYTES = 4_000_000


class Stretch(NamedTuple):
    """A file, or the lines of a .jsonl file that begin at byte `start` or later, before `stop`."""

    file: SourceFile
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A document that passed the filters."""

    repository: str
    path: str
    language: str
    licence: str
    sha: str
    """Of the text with white space made equal."""
    start: int
    """Where its text begins in the part's file of texts, bytes."""
    size: int
    """Bytes of prompt and text."""
    prompt_size: int
    """Bytes of the prompt, which stands before the text."""
    imports: list[str]
    """Files and modules that it may need, as they are written."""

    @property
    def name(self) -> str:
        """Decides the split; stays the same when the contents change, where there is a path."""
        return f"{self.repository}/{self.path}" if self.path else f"{self.repository}#{self.sha}"


def stretches(files: Sequence[SourceFile]) -> list[list[Stretch]]:
    """Parts of about 4 MB, in order."""
    parts: list[list[Stretch]] = []
    part: list[Stretch] = []
    size = 0
    for file in files:
        step = PART_BYTES if file.holds_records else max(file.size, 1)
        for start in range(0, max(file.size, 1), step):
            stop = min(start + step, file.size)
            part.append(Stretch(file, start, stop))
            size += stop - start
            if size >= PART_BYTES:
                parts.append(part)
                part, size = [], 0
    return [*parts, part] if part else parts


@dataclass(frozen=True)
class ReadPart:
    """Reads one part; picklable."""

    config: PrepareConfig

    def __call__(self, part: Sequence[Stretch], done: Path) -> None:
        """Writes the three files of a part."""
        skipped = Tally()
        found: list[Found] = []
        signatures: list[Signature] = []
        base = done.with_suffix("")
        at = 0
        with base.with_suffix(".text").open("wb") as texts:
            for record in self._records(part, skipped):
                raw = (record.prompt + record.text).encode("utf-8", errors="replace")
                found.append(_found(record, at, len(raw)))
                if not record.prompt and self.config.near_duplicates:
                    signatures.append(signature(record.text))
                else:
                    signatures.append(np.zeros(NUM_PERMUTATIONS, dtype=np.uint32))
                texts.write(raw)
                at += len(raw)
        np.array(signatures, dtype="<u4").tofile(base.with_suffix(".signatures"))
        write_whole(done, {"found": [asdict(item) for item in found], "skipped": skipped.as_dict()})

    def _records(self, part: Sequence[Stretch], skipped: Tally) -> Iterator[Record]:
        for stretch in part:
            if stretch.file.holds_records:
                for record in _lines(stretch):
                    kept = self._checked(record, skipped)
                    if kept:
                        yield kept
            else:
                record_or_none = self._file(stretch.file, skipped)
                if record_or_none:
                    yield record_or_none

    def _file(self, file: SourceFile, skipped: Tally) -> Record | None:
        try:
            raw = Path(file.path).read_bytes()
        except OSError:
            skipped.add(Reason.unreadable, file.size)
            return None
        text = filters.decode(raw)
        if isinstance(text, Reason):
            skipped.add(text, file.size)
            return None
        record = Record(
            text=text,
            repository=file.repository,
            path=file.name,
            language=file.language,
            licence=file.licence,
        )
        return self._passed(record, file.size, skipped)

    def _checked(self, record: Record, skipped: Tally) -> Record | None:
        """A record of a .jsonl file: its size and language were not known before."""
        size = len(record.text.encode("utf-8", errors="replace"))
        if not record.prompt:
            reason = filters.of_size(size, self.config)
            if (
                not reason
                and self.config.languages
                and record.language not in self.config.languages
            ):
                reason = Reason.other_language
            if reason:
                skipped.add(reason, size)
                return None
            return self._passed(record, size, skipped)
        if not record.text.strip():
            skipped.add(Reason.too_small, size)
            return None
        return record

    def _passed(self, record: Record, size: int, skipped: Tally) -> Record | None:
        reason = filters.of_text(record.text, self.config)
        if not reason and not self.config.copyleft and forbids(record.text):
            reason = Reason.licence
        if reason:
            skipped.add(reason, size)
            return None
        text = record.text
        if not self.config.licence_headers:
            text = without_notice(text)
        text = text.strip("\n")
        if not text.strip():
            skipped.add(Reason.too_small, size)
            return None
        return Record(
            text=text + "\n",
            repository=record.repository,
            path=record.path,
            language=record.language,
            licence=record.licence,
        )


def read_found(done: Path) -> tuple[list[Found], Tally]:
    """What a finished part says of its documents, and of what was left out."""
    content = json.loads(done.read_bytes())
    return [Found(**item) for item in content["found"]], Tally(content["skipped"])


def read_signatures(done: Path) -> Signature:
    """Signatures of a finished part's documents, uint32 [documents, 128]."""
    raw = np.fromfile(done.with_suffix(".signatures"), dtype="<u4")
    return raw.astype(np.uint32, copy=False).reshape(-1, NUM_PERMUTATIONS)


def _found(record: Record, start: int, size: int) -> Found:
    prompt = record.prompt.encode("utf-8", errors="replace")
    same = " ".join((record.prompt + "\0" + record.text).split())
    return Found(
        repository=record.repository,
        path=record.path,
        language=record.language,
        licence=record.licence,
        sha=hashlib.sha256(same.encode("utf-8", errors="replace")).hexdigest()[:32],
        start=start,
        size=size,
        prompt_size=len(prompt),
        imports=imported(record.text, record.language),
    )


def _lines(stretch: Stretch) -> Iterator[Record]:
    """Records whose lines begin inside a stretch."""
    file = stretch.file
    with open(file.path, "rb") as stream:
        if stretch.start:
            stream.seek(stretch.start - 1)
            stream.readline()  # the rest of a line that another part reads
        while stream.tell() < stretch.stop:
            at = stream.tell()
            line = stream.readline()
            if not line.strip():
                continue
            try:
                record = read_record(line, "")
            except ValueError:
                record = read_record(line, f"{file.name}:{_line_number(file.path, at)}")
            yield _named(record, file)


def _named(record: Record, file: SourceFile) -> Record:
    language = language_of_path(record.path) if record.path else None
    key = language.key if language else ""
    if record.language:
        try:
            key = find_language(record.language).key
        except ValueError:
            key = ""
    return Record(
        text=record.text.replace("\r\n", "\n"),
        prompt=record.prompt.replace("\r\n", "\n"),
        repository=record.repository or file.repository,
        path=record.path,
        language=key,
        licence=record.licence or file.licence,
    )


def _line_number(path: str, at: int) -> int:
    """Number of the line that begins at byte `at`, from 1."""
    number = 1
    with open(path, "rb") as stream:
        while at > 0:
            block = stream.read(min(at, 1 << 20))
            if not block:
                break
            number += block.count(b"\n")
            at -= len(block)
    return number
