"""Results of samples in a file: written as they come, read to go on and to score."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from codegeex.evaluate.config import ExecutionConfig
from codegeex.evaluate.jsonl import Row, append_row, field, read_rows
from codegeex.evaluate.verdict import Verdict
from codegeex.evaluate.work import Result, Work

_FIELDS = tuple(one.name for one in fields(Result))


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A result, and what it is a result of."""

    result: Result
    num_problems: int
    """How many problems the benchmark has in this language and suite."""
    digest: str
    """Of the program and its limits."""

    @property
    def key(self) -> tuple[str, int]:
        """Which sample."""
        return self.result.task_id, self.result.number


class ResultsFile:
    """A file of results that grows, and that a later run goes on with.

    What it holds of other programs, or of the same ones under other limits, is dropped when it is
    opened; what was skipped is tried again, for the tool may have come.

    Args:
        path: made where it does not exist.
        works: the programs to run.
        config: their limits.
        num_problems: how many the benchmark has, by language and suite.

    Raises:
        ValueError: the file is there and holds something else.
    """

    def __init__(
        self,
        path: Path,
        works: Iterable[Work],
        config: ExecutionConfig,
        num_problems: Mapping[tuple[str, str], int],
    ) -> None:
        self.path = path
        self._num_problems = num_problems
        works = list(works)
        self._digests = {(work.task_id, work.number): digest(work, config) for work in works}
        known = {row.key: row for row in read_results(path)} if path.exists() else {}
        self.rows = {
            key: row
            for key, row in known.items()
            if self._digests.get(key) == row.digest and row.result.verdict is not Verdict.skipped
        }
        """Results so far, by sample."""
        self.missing = [work for work in works if (work.task_id, work.number) not in self.rows]
        """Programs that are still to be run."""
        self._rewrite()

    def add(self, results: Iterable[Result]) -> Iterator[Result]:
        """Writes results as they come, each at once, and yields them."""
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            for result in results:
                key = result.task_id, result.number
                row = ResultRow(
                    result=result,
                    num_problems=self._num_problems[result.language, result.suite],
                    digest=self._digests[key],
                )
                self.rows[key] = row
                append_row(file, _as_row(row))
                yield result

    def _rewrite(self) -> None:
        """Leaves only what is of use, in one step."""
        beside = self.path.with_name(f"{self.path.name}.new")
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            for row in self.rows.values():
                append_row(file, _as_row(row))
        os.replace(beside, self.path)


def results_path(samples: Path) -> Path:
    """Returns where the results of a file of samples go when nothing else is said."""
    name = samples.name.removesuffix(".gz").removesuffix(".jsonl")
    return samples.with_name(f"{name}.results.jsonl")


def digest(work: Work, config: ExecutionConfig) -> str:
    """Returns what tells a program under its limits from every other."""
    limits = replace(config, workers=0, sandbox="auto", rust_crates="")
    said = f"{limits!r}\0{work.language}\0{work.source}"
    return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()[:16]


def read_results(path: Path) -> list[ResultRow]:
    """Returns the rows of a file of results; a last line that a break left unfinished is dropped.

    Raises:
        ValueError: the file holds something else; the message names the line.
        OSError: it cannot be read.
    """
    rows = read_rows(path, may_be_cut=True)
    return [_parsed(row, f"{path}, line {number}") for number, row in rows]


def _as_row(row: ResultRow) -> Row:
    result = asdict(row.result)
    passed = row.result.verdict is Verdict.passed
    return result | {"passed": passed, "num_problems": row.num_problems, "digest": row.digest}


def _parsed(row: Row, where: str) -> ResultRow:
    values = {name: row[name] for name in _FIELDS if name in row}
    try:
        result = Result(**(values | {"verdict": Verdict(values["verdict"])}))
        return ResultRow(
            result=result,
            num_problems=int(row["num_problems"]),
            digest=field(row, "digest", where),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where} is no result of `codegeex evaluate execute` ({error}): name another file"
        ) from error
