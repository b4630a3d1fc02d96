"""Proof that the execution on this machine is right: solutions pass, and wrong answers do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from codegeex.evaluate.humaneval_x import Problems, ground_truth, negative_controls
from codegeex.evaluate.problems import language_name
from codegeex.evaluate.verdict import Verdict
from codegeex.evaluate.work import Result, Work

Run = Callable[[Sequence[Work]], Iterable[Result]]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One language."""

    language: str
    solutions: tuple[Result, ...]
    controls: tuple[Result, ...]
    seconds: float
    """That the solutions took, all together."""

    @property
    def skipped(self) -> int:
        return sum(one.verdict is Verdict.skipped for one in (*self.solutions, *self.controls))

    @property
    def wrong(self) -> tuple[Result, ...]:
        """Solutions that failed and controls that passed."""
        failed = [
            one for one in self.solutions if one.verdict not in (Verdict.passed, Verdict.skipped)
        ]
        return (*failed, *(one for one in self.controls if one.verdict is Verdict.passed))

    @property
    def is_right(self) -> bool:
        return not self.wrong


def check(problems: Problems, run: Run) -> list[Checked]:
    """Runs the solutions and the negative controls of each language.

    Args:
        problems: of one language or more.
        run: runs programs, in any order.
    """
    by_language: dict[str, dict[str, Any]] = {}
    for task_id, problem in problems.items():
        by_language.setdefault(problem.language, {})[task_id] = problem
    return [_check(language, part, run) for language, part in by_language.items()]


def as_data(checked: Sequence[Checked]) -> dict[str, Any]:
    """Returns what was found, for programs."""
    return {
        "right": all(one.is_right for one in checked),
        "languages": [
            {
                "language": one.language,
                "solutions": len(one.solutions),
                "solutions_passed": _count(one.solutions, Verdict.passed),
                "controls": len(one.controls),
                "controls_passed": _count(one.controls, Verdict.passed),
                "skipped": one.skipped,
                "seconds": round(one.seconds, 3),
                "wrong": [asdict(result) for result in one.wrong],
                "isolation": one.solutions[0].isolation,
                "toolchain": one.solutions[0].toolchain,
            }
            for one in checked
        ],
    }


def as_text(checked: Sequence[Checked]) -> str:
    """Returns what was found, for people."""
    lines = [f"{'language':<11} {'solutions':>12} {'wrong answers':>14} {'s/program':>10}"]
    for one in checked:
        passed = f"{_count(one.solutions, Verdict.passed)}/{len(one.solutions)} passed"
        wrong = f"{_count(one.controls, Verdict.passed)}/{len(one.controls)} passed"
        each = one.seconds / len(one.solutions)
        lines.append(f"{language_name(one.language):<11} {passed:>12} {wrong:>14} {each:>10.3f}")
        if one.skipped:
            why = next(
                r.detail for r in (*one.solutions, *one.controls) if r.verdict is Verdict.skipped
            )
            lines.append(f"  {one.skipped} skipped: {why}")
        lines += [f"  WRONG: {r.task_id} {r.verdict}: {r.detail}" for r in one.wrong]
    kinds = sorted({r.isolation for one in checked for r in one.solutions})
    return "\n".join([*lines, f"kept in by {', '.join(kinds)}"])


def _check(language: str, problems: Problems, run: Run) -> Checked:
    began = time.monotonic()
    solutions = tuple(run(ground_truth(problems)))
    seconds = time.monotonic() - began
    controls = tuple(run(negative_controls(problems)))
    return Checked(language=language, solutions=solutions, controls=controls, seconds=seconds)


def _count(results: Sequence[Result], verdict: Verdict) -> int:
    return sum(one.verdict is verdict for one in results)
