"""Completions of holes: how close they are to what stood there, and the programs they make."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from codegeex.evaluate.infilling.similarity import edit_similarity
from codegeex.evaluate.infilling.task import HoleTask, Tasks
from codegeex.evaluate.samples import Sample
from codegeex.evaluate.verdict import Verdict
from codegeex.evaluate.work import Result, Work


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Samples of holes: those that must be run, and those of which everything is known."""

    works: tuple[Work, ...]
    """All of them, in the order of the samples."""
    known: dict[tuple[str, int], Result]
    """By task_id and number."""


def judge(tasks: Tasks, samples: Iterable[Sample]) -> Judged:
    """Returns what is known of samples without running anything.

    Raises:
        ValueError: a sample belongs to none of the holes.
    """
    counts: Counter[str] = Counter()
    works: list[Work] = []
    known: dict[tuple[str, int], Result] = {}
    for sample in samples:
        task, number = _task_of(tasks, sample), counts[sample.task_id]
        counts[sample.task_id] += 1
        works.append(_work(task, sample.text, number))
        matches = task.matches(sample.text)
        if matches or task.work is None:
            verdict = Verdict.passed if matches else Verdict.wrong_answer
            known[task.task_id, number] = _known(task, number, verdict)
    return Judged(works=tuple(works), known=known)


def closeness(tasks: Tasks, samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Returns exact match and edit similarity for each suite, both between 0 and 1.

    White space at the ends of a completion makes no difference. Holes of which it is not known what
    stood there are left out.
    """
    by_suite: dict[str, list[tuple[bool, float]]] = {}
    for sample in samples:
        task = _task_of(tasks, sample)
        if task.expected:
            one, other = sample.text.strip(), task.expected.strip()
            pair = one == other, edit_similarity(one, other)
            by_suite.setdefault(task.suite, []).append(pair)
    return [
        {
            "suite": suite,
            "holes": sum(task.suite == suite for task in tasks.values()),
            "completions": len(pairs),
            "exact_match": sum(exact for exact, _ in pairs) / len(pairs),
            "edit_similarity": math.fsum(similarity for _, similarity in pairs) / len(pairs),
        }
        for suite, pairs in by_suite.items()
    ]


def closeness_text(found: Sequence[dict[str, Any]]) -> str:
    """Returns a table of `closeness` for people."""
    rows = [f"{'':<20} {'holes':>6} {'exact match':>12} {'edit similarity':>16}"]
    for one in found:
        match, similarity = f"{one['exact_match']:.1%}", f"{one['edit_similarity']:.1%}"
        rows.append(f"{one['suite']:<20} {one['holes']:>6} {match:>12} {similarity:>16}")
    return "\n".join(rows)


def count_by_part(tasks: Tasks) -> dict[tuple[str, str], int]:
    """Returns how many holes there are, by language and suite."""
    return dict(Counter((task.hole.language, task.suite) for task in tasks.values()))


def _work(task: HoleTask, completion: str, number: int) -> Work:
    if task.work is not None:
        return task.work(completion, number)
    return Work(
        task_id=task.task_id,
        number=number,
        language=task.hole.language,
        suite=task.suite,
        source=f"{task.expected}\0{completion}",
    )


def _known(task: HoleTask, number: int, verdict: Verdict) -> Result:
    return Result(
        task_id=task.task_id,
        number=number,
        language=task.hole.language,
        suite=task.suite,
        verdict=verdict,
        detail="" if verdict is Verdict.passed else "it is not what stood there",
        stage="match",
    )


def _task_of(tasks: Tasks, sample: Sample) -> HoleTask:
    task = tasks.get(sample.task_id)
    if task is None:
        raise ValueError(
            f"the samples fill {sample.task_id!r}, which is no hole of the given files: name the "
            "right ones"
        )
    return task
