"""A file of samples that a model writes: what is there stays, what is missing is added."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from codegeex.evaluate.answers import Answered
from codegeex.evaluate.jsonl import Row, append_row, cut_off_torn_line, read_rows
from glm_core.infer.sampling import SamplingConfig


class SamplesFile:
    """Samples of some tasks by one model; the file may hold those of other tasks, too.

    Args:
        path: made where it does not exist.
        digests: what tells samples of these settings from others, by task_id.

    Raises:
        ValueError: the file holds something else, or samples of another model or other settings.
    """

    def __init__(self, path: Path, digests: Mapping[str, str]) -> None:
        self._path = path
        self._digests = digests
        self._known: set[tuple[str, int]] = set()
        if not path.exists():
            return
        for line, row in read_rows(path, may_be_cut=True):
            self._known.add(self._key(row, f"{path}, line {line}"))
        cut_off_torn_line(path)

    def missing(self, num_samples: int) -> list[tuple[str, int]]:
        """Returns task_id and number of the samples that are not there, task by task."""
        wanted = ((task_id, number) for task_id in self._digests for number in range(num_samples))
        return [key for key in wanted if key not in self._known]

    def add(
        self, found: Iterable[Answered], fields: Callable[[Answered], Row]
    ) -> Iterator[Answered]:
        """Writes answers as they come, each at once, and yields them.

        Args:
            found: the answers.
            fields: what is written of one beside task, number and settings.
        """
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            for answered in found:
                task_id, number = answered.question.key, answered.question.number
                known = {"finish": answered.finish, "tokens": answered.num_tokens}
                row = {"task_id": task_id, "number": number, **fields(answered), **known}
                append_row(file, row | {"settings": self._digests[task_id]})
                yield answered

    def _key(self, row: Row, where: str) -> tuple[str, int]:
        task_id, number = row.get("task_id"), row.get("number")
        if not isinstance(task_id, str) or not isinstance(number, int):
            raise ValueError(f"{where} was not written by this command: name another file")
        if row.get("settings") != self._digests.get(task_id, row.get("settings")):
            raise ValueError(
                f"{where} is a sample of another model or of other settings: name another file "
                "with --out, or remove this one"
            )
        return task_id, number


def settings_digest(model: str, sampling: SamplingConfig, said: str) -> str:
    """Returns what tells the samples of a task from those of other settings.

    Args:
        model: its name.
        sampling: how it answers.
        said: what it is given.
    """
    text = f"{model}\0{sampling!r}\0{said}"
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
