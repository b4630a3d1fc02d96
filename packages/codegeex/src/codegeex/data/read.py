"""First stage: files become documents that passed the filters, with their signatures.

A part is a few MB of files, or a stretch of a .jsonl file. It leaves NNNNN.text (texts, one after
another), NNNNN.signatures (uint32, 128 each), and last NNNNN.json (what is known of each document,
and what was left out).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from codegeex.data import filters
from codegeex.data.config import PrepareConfig
from codegeex.data.contamination import load_benchmarks
from codegeex.data.files import SourceFile, of_name
from codegeex.data.headers import forbids, without_notice
from codegeex.data.imports import imported
from codegeex.data.minhash import NUM_PERMUTATIONS, Signature, signature
from codegeex.data.parts import write_whole
from codegeex.data.reasons import Reason, Tally
from codegeex.data.records import Record, records_between

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


@dataclass
class LeftOut:
    """What was left out, and why."""

    tally: Tally = field(default_factory=Tally)
    contaminated: list[tuple[str, str]] = field(default_factory=list)
    """Problem, and the document that holds it."""

    def merge(self, other: LeftOut) -> None:
        """Counts what another part left out."""
        self.tally.merge(other.tally)
        self.contaminated.extend(other.contaminated)


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
        left_out = LeftOut()
        found: list[Found] = []
        signatures: list[Signature] = []
        at = 0
        with done.with_suffix(".text").open("wb") as texts:
            for record in self._records(part, left_out):
                raw = _bytes(record.prompt + record.text)
                found.append(_found(record, at, len(raw)))
                signatures.append(self._signature(record))
                texts.write(raw)
                at += len(raw)
        np.array(signatures, dtype="<u4").tofile(done.with_suffix(".signatures"))
        content = {
            "found": [asdict(item) for item in found],
            "skipped": left_out.tally.as_dict(),
            "contaminated": left_out.contaminated,
        }
        write_whole(done, content)

    def _records(self, part: Sequence[Stretch], left_out: LeftOut) -> Iterator[Record]:
        for stretch in part:
            if stretch.file.holds_records:
                candidates = records_between(stretch.file, stretch.start, stretch.stop)
            else:
                candidates = _whole_file(stretch.file, left_out.tally)
            for record, size in candidates:
                kept = self._judged(record, size)
                if kept is Reason.contaminated:
                    left_out.contaminated.append((self._problem(record), record.name))
                if isinstance(kept, Reason):
                    left_out.tally.add(kept, size)
                else:
                    yield kept

    def _judged(self, record: Record, size: int) -> Record | Reason:
        """The record as it goes on, or why it does not."""
        if record.path or record.language or self.config.languages:
            reason = of_name(record.path, record.language, self.config)
            if reason:
                return reason
        if not record.prompt:
            reason = filters.of_size(size, self.config) or filters.of_text(record.text, self.config)
            if not reason and not self.config.copyleft and forbids(record.text):
                reason = Reason.licence
            if reason:
                return reason
            record = self._cleaned(record)
        if not record.text.strip():
            return Reason.too_small
        return Reason.contaminated if self._problem(record) else record

    def _cleaned(self, record: Record) -> Record:
        text = record.text if self.config.licence_headers else without_notice(record.text)
        return replace(record, text=text.strip("\n") + "\n")

    def _problem(self, record: Record) -> str:
        if not self.config.decontaminate:
            return ""
        benchmarks = load_benchmarks(tuple(self.config.decontaminate))
        return benchmarks.problem_in(f"{record.prompt}\n{record.text}")

    def _signature(self, record: Record) -> Signature:
        if record.prompt or not self.config.near_duplicates:
            return np.zeros(NUM_PERMUTATIONS, dtype=np.uint32)
        return signature(record.text)


def read_found(done: Path) -> tuple[list[Found], LeftOut]:
    """What a finished part says of its documents, and of what was left out."""
    content = json.loads(done.read_bytes())
    contaminated = [(problem, name) for problem, name in content["contaminated"]]
    return [Found(**item) for item in content["found"]], LeftOut(
        Tally(content["skipped"]), contaminated
    )


def read_signatures(done: Path) -> Signature:
    """Signatures of a finished part's documents, uint32 [documents, 128]."""
    raw = np.fromfile(done.with_suffix(".signatures"), dtype="<u4")
    return raw.astype(np.uint32, copy=False).reshape(-1, NUM_PERMUTATIONS)


def _whole_file(file: SourceFile, skipped: Tally) -> Iterator[tuple[Record, int]]:
    """One record, or none after the file was counted."""
    try:
        raw = Path(file.path).read_bytes()
    except OSError:
        skipped.add(Reason.unreadable, file.size)
        return
    text = filters.decode(raw)
    if isinstance(text, Reason):
        skipped.add(text, len(raw))
        return
    record = Record(
        text=text,
        repository=file.repository,
        path=file.name,
        language=file.language,
        licence=file.licence,
    )
    yield record, len(raw)


def _found(record: Record, start: int, size: int) -> Found:
    same = " ".join(f"{record.prompt}\0{record.text}".split())
    return Found(
        repository=record.repository,
        path=record.path,
        language=record.language,
        licence=record.licence,
        sha=hashlib.sha256(_bytes(same)).hexdigest()[:32],
        start=start,
        size=size,
        prompt_size=len(_bytes(record.prompt)),
        imports=imported(record.text, record.language),
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")
