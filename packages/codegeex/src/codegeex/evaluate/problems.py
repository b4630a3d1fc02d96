"""The problems of HumanEval-X, as its files have them; some of our own come with the package.

Both published layouts are read (CodeGeeX and CodeGeeX2 differ in Rust's prompts), and OpenAI's
HumanEval, whose tests only define what to call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from codegeex.evaluate.jsonl import Row, field, read_rows
from codegeex.languages import LANGUAGES

PREFIXES = {
    "Python": "python",
    "CPP": "c++",
    "Java": "java",
    "JavaScript": "javascript",
    "Go": "go",
    "Rust": "rust",
    "HumanEval": "python",
}
"""What a task_id begins with, and the language; `codegeex.languages` has its other names."""

TITLES = {language: prefix for prefix, language in reversed(PREFIXES.items())}
"""What a task_id of a language begins with."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem in one language."""

    task_id: str
    language: str
    prompt: str
    """What a model continues: a comment, what must be imported, the head of a function."""
    declaration: str
    """The prompt without its comment; all of it in a file that has none."""
    canonical_solution: str
    test: str
    example_test: str
    """The tests that the comment shows; empty where the file has none."""
    imports: str = ""
    """Go: the import block of the prompt."""
    test_setup: str = ""
    """Go: what stands before everything in the program."""

    @property
    def number(self) -> str:
        """What is the same in all languages: 12 of `Go/12`."""
        return self.task_id.rpartition("/")[2]

    def tests(self, examples_only: bool = False) -> str:
        """Returns the tests to run; a problem without example tests has all of them instead."""
        return self.example_test if examples_only and self.example_test.strip() else self.test


def read_problems(path: Path) -> dict[str, Problem]:
    """Returns the problems of a file, by task_id.

    Raises:
        ValueError: the file is not as HumanEval-X's; the message names the line.
        OSError: it cannot be read.
    """
    problems: dict[str, Problem] = {}
    for number, row in read_rows(path):
        problem = _problem(row, f"{path}, line {number}")
        if problem.task_id in problems:
            raise ValueError(f"{path}, line {number}: task_id {problem.task_id!r} is there twice")
        problems[problem.task_id] = problem
    if not problems:
        raise ValueError(f"{path} has no problems: it must be a file of HumanEval-X")
    return problems


def shipped_problems(language: str) -> dict[str, Problem]:
    """Returns our own problems in a language, a key of `codegeex.languages`."""
    with resources.as_file(_shipped() / f"{TITLES[language].lower()}.jsonl") as path:
        return read_problems(path)


def _shipped() -> resources.abc.Traversable:
    return resources.files("codegeex.evaluate") / "shipped"


def language_of(task_id: str) -> str:
    """Returns the language that a task_id names.

    Raises:
        ValueError: none of HumanEval-X's.
    """
    prefix = task_id.partition("/")[0]
    if prefix not in PREFIXES:
        raise ValueError(
            f"task_id {task_id!r} names no language of HumanEval-X: it must begin with one of "
            f"{', '.join(f'{prefix}/' for prefix in PREFIXES)}"
        )
    return PREFIXES[prefix]


def languages() -> Iterator[str]:
    """Yields the languages of HumanEval-X, in its order."""
    yield from dict.fromkeys(PREFIXES.values())


def language_name(language: str) -> str:
    """Returns a language's name for people."""
    return LANGUAGES[language].name


def _problem(row: Row, where: str) -> Problem:
    task_id = field(row, "task_id", where)
    prompt = field(row, "prompt", where)
    test = field(row, "test", where)
    if "entry_point" in row:  # OpenAI's file: its tests have to be called
        test += f"\n\ncheck({field(row, 'entry_point', where)})\n"
    try:
        language = language_of(task_id)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return Problem(
        task_id=task_id,
        language=language,
        prompt=prompt,
        declaration=field(row, "declaration", where, default=prompt),
        canonical_solution=field(row, "canonical_solution", where, default=""),
        test=test,
        example_test=field(row, "example_test", where, default=""),
        imports=field(row, "import", where, default=""),
        test_setup=field(row, "test_setup", where, default=""),
    )
