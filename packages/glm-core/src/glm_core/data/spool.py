"""Documents on disk between the passes over a corpus, so that memory stays small."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from glm_core.data.documents import HELDOUT, SPLITS, TRAIN, Document, share_of
from glm_core.progress import Progress

_TOKENIZER_CHARS = 500_000_000


class Spool:
    """A temporary jsonl file of documents with a summary of each split; removed on exit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._moved: str | None = None
        self._summaries: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._path.unlink(missing_ok=True)

    def fill(self, documents: Iterable[Document], source: str, want_heldout: bool) -> None:
        """Writes all documents down.

        Where chance held out none of them although some were wanted, the document with the
        smallest name hash is held out.

        Raises:
            ValueError: if there is no document, or none is left for training.
        """
        counts = dict.fromkeys(SPLITS, 0)
        smallest: tuple[float, str] | None = None
        progress = Progress("reading", 0, "MB")
        with self._path.open("w", encoding="utf-8") as file:
            for document in documents:
                clean = document.text.encode("utf-8", errors="replace").decode("utf-8")
                file.write(json.dumps({**asdict(document), "text": clean}) + "\n")
                counts[document.split] += 1
                share = (share_of(document.name), document.name)
                smallest = share if smallest is None else min(share, smallest)
                progress.add(len(clean) / 1e6)
        if smallest is None:
            raise ValueError(
                f"data.source={source!r} has no text: every document is empty; name a corpus "
                "with some"
            )
        if want_heldout and not counts[HELDOUT]:
            self._moved = smallest[1]
            counts[TRAIN] -= 1
            counts[HELDOUT] += 1
        if counts[TRAIN] <= 0:
            raise ValueError(
                f"data.source={source!r} has too little text: {sum(counts.values())} document(s) "
                "leave nothing for training beside the held-out split; add documents"
            )
        self._summarise()

    def documents(self) -> Iterator[Document]:
        """All documents in order, with their final splits."""
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                document = Document(**json.loads(line))
                if document.name == self._moved:
                    document = Document(document.name, document.text, HELDOUT)
                yield document

    def texts(self, split: str) -> Iterator[str]:
        """Texts of one split; at most 500 million characters, enough to learn a vocabulary."""
        left = _TOKENIZER_CHARS
        for document in self.documents():
            if document.split == split and left > 0:
                left -= len(document.text)
                yield document.text

    def batches(self, chars: int) -> Iterator[list[Document]]:
        """All documents in order, in lists of about `chars` characters."""
        batch: list[Document] = []
        size = 0
        for document in self.documents():
            batch.append(document)
            size += len(document.text)
            if size >= chars:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def summary(self, split: str) -> dict[str, Any]:
        """Number of documents, bytes of UTF-8, and sha256 over names and texts."""
        return dict(self._summaries[split])

    def _summarise(self) -> None:
        digests = {split: hashlib.sha256() for split in SPLITS}
        sums = {split: {"documents": 0, "bytes": 0} for split in SPLITS}
        for document in self.documents():
            raw = document.text.encode("utf-8")
            name = document.name.encode("utf-8", errors="replace")
            digests[document.split].update(name + b"\0" + raw + b"\0")
            sums[document.split]["documents"] += 1
            sums[document.split]["bytes"] += len(raw)
        for split in SPLITS:
            self._summaries[split] = {**sums[split], "sha256": digests[split].hexdigest()}
