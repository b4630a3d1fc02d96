"""HumanEval-X: which programs a file of samples stands for, and the ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from codegeex.evaluate.assemble import program
from codegeex.evaluate.cleanup import cleaned
from codegeex.evaluate.problems import (
    TITLES,
    Problem,
    languages,
    read_problems,
    shipped_problems,
)
from codegeex.evaluate.samples import Sample
from codegeex.evaluate.work import Work
from codegeex.languages import find_language

Problems = Mapping[str, Problem]


def load_problems(files: Iterable[Path], names: Iterable[str]) -> dict[str, Problem]:
    """Returns problems by task_id: of files, or our own where none is given.

    Args:
        files: of HumanEval-X.
        names: languages to keep, in any spelling; none: all.

    Raises:
        ValueError: a file is not as HumanEval-X's, two hold the same problem, a language is
            unknown, or nothing is left.
    """
    wanted = [_language(name) for name in names]
    problems: dict[str, Problem] = {}
    files = list(files)
    parts = [read_problems(path) for path in files]
    parts += [] if files else [shipped_problems(language) for language in languages()]
    for part in parts:
        twice = problems.keys() & part.keys()
        if twice:
            raise ValueError(f"problem {min(twice)!r} is in two of the files: give each file once")
        problems |= part
    kept = {
        task_id: problem
        for task_id, problem in problems.items()
        if not wanted or problem.language in wanted
    }
    if not kept:
        raise ValueError(f"no problem is in {' or '.join(wanted)}: give other files or languages")
    return kept


def sample_works(
    problems: Problems,
    samples: Iterable[Sample],
    examples_only: bool = False,
    translated_to: str = "",
    clean: bool = False,
) -> list[Work]:
    """Returns the programs of samples.

    Args:
        problems: what the samples answer.
        samples: in the order of their file.
        examples_only: run the tests that the prompts show.
        translated_to: language of samples whose task_ids are those of the source, as the files of
            other programs have them; empty: a task_id names the language of its answer.
        clean: whether what stands behind the answer is cut off, as it is in our own files.

    Raises:
        ValueError: a sample's problem is missing.
    """
    target = TITLES[_language(translated_to)] if translated_to else ""
    counts: Counter[str] = Counter()
    works = []
    for sample in samples:
        if target:
            name = f"{target}/{sample.task_id.rpartition('/')[2]}"
            sample = replace(sample, task_id=name, translated_from=sample.task_id)
        problem = _problem_of(problems, sample)
        text = cleaned(sample.text, problem.language) if clean else sample.text
        tests = problem.tests(examples_only)
        works.append(
            Work(
                task_id=problem.task_id,
                number=counts[problem.task_id],
                language=problem.language,
                source=program(problem, text, tests, translated=bool(sample.translated_from)),
            )
        )
        counts[problem.task_id] += 1
    return works


def ground_truth(problems: Problems, examples_only: bool = False) -> list[Work]:
    """Returns the programs of the problems' own solutions, all of which must pass."""
    return [
        _work(problem, 0, problem.canonical_solution, examples_only)
        for problem in problems.values()
    ]


def negative_controls(problems: Problems) -> list[Work]:
    """Returns programs that must not pass: each problem's solution as nothing, and as a wrong
    answer."""
    return [
        _work(problem, number, body)
        for problem in problems.values()
        for number, body in enumerate(_WRONG[problem.language])
    ]


_WRONG = {
    "python": ("", "    return None\n"),
    "c++": ("}\n", "    return {};\n}\n"),
    "java": ("    }\n}\n", "        throw new UnsupportedOperationException();\n    }\n}\n"),
    "javascript": ("}\n", "  return NaN;\n}\n"),
    "go": ("}\n", '    panic("not solved")\n}\n'),
    "rust": ("}\n", "    Default::default()\n}\n"),
}
"""Bodies without an answer, and bodies with a wrong one."""


def _work(problem: Problem, number: int, body: str, examples_only: bool = False) -> Work:
    return Work(
        task_id=problem.task_id,
        number=number,
        language=problem.language,
        source=program(problem, body, problem.tests(examples_only)),
    )


def _problem_of(problems: Problems, sample: Sample) -> Problem:
    problem = problems.get(sample.task_id)
    if problem is None:
        known = ", ".join(sorted({task_id.partition("/")[0] for task_id in problems}))
        raise ValueError(
            f"the samples answer {sample.task_id!r}, which is no problem of the given files (of "
            f"{known}): name the right ones with --problems, and for a translation whose task_ids "
            "are the source's the language with --translated-to"
        )
    return problem


def _language(name: str) -> str:
    key = find_language(name).key
    if key not in TITLES:
        raise ValueError(
            f"language {name!r} is not in HumanEval-X: choose from {', '.join(languages())}"
        )
    return key
