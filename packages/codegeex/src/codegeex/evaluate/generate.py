"""Samples of HumanEval-X by a model: generation and translation, into a file that can grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codegeex.evaluate.answers import Answered, IsOver, Question, answers
from codegeex.evaluate.cleanup import cleaned, finished
from codegeex.evaluate.jsonl import Row
from codegeex.evaluate.problems import TITLES, Problem
from codegeex.evaluate.prompts import PromptStyle, generation_prompt, translation_prompt
from codegeex.evaluate.samples_file import SamplesFile, settings_digest
from glm_core.infer.blanks import Prompt, check_room, continuation_prompt
from glm_core.infer.engine import Engine
from glm_core.infer.sampling import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class Task:
    """One problem to answer."""

    problem: Problem
    """In the language of the answer."""
    prompt: str
    translated_from: str = ""
    """Prefix of the source's task_id."""


def generation_tasks(problems: Mapping[str, Problem], style: PromptStyle) -> list[Task]:
    """Returns a task for each problem."""
    return [
        Task(problem=problem, prompt=generation_prompt(problem, style))
        for problem in problems.values()
    ]


def translation_tasks(sources: Mapping[str, Problem], targets: Mapping[str, Problem]) -> list[Task]:
    """Returns a task for each problem that is in both languages.

    Args:
        sources: of one language, with solutions.
        targets: of another language.

    Raises:
        ValueError: the two have no problem in common, or a source has no solution.
    """
    by_number = {problem.number: problem for problem in sources.values()}
    tasks = []
    for target in targets.values():
        source = by_number.get(target.number)
        if source is None:
            continue
        if not source.canonical_solution.strip():
            raise ValueError(f"{source.task_id} has no canonical_solution that can be translated")
        prompt = translation_prompt(source, target)
        name = TITLES[source.language]
        tasks.append(Task(problem=target, prompt=prompt, translated_from=name))
    if not tasks:
        raise ValueError("the source's and the target's files have no problem in common")
    return tasks


class Generation:
    """Samples of tasks in a file: those that it holds, and those that are missing.

    Args:
        engine: with the model.
        tasks: what is answered.
        num_samples: for each task.
        sampling: how; `max_new_tokens` is the longest answer.
        path: of the samples; made where it does not exist.
        model: its name.

    Raises:
        ValueError: a prompt is too long for the model, or the file holds something else, or
            samples of another model or other settings.
    """

    def __init__(
        self,
        engine: Engine,
        tasks: Sequence[Task],
        num_samples: int,
        sampling: SamplingConfig,
        path: Path,
        model: str,
    ) -> None:
        self._engine = engine
        self._sampling = sampling
        self._tasks = {task.problem.task_id: task for task in tasks}
        digests = {
            task.problem.task_id: settings_digest(model, sampling, task.prompt) for task in tasks
        }
        prompts = {task_id: _prompt(engine, task) for task_id, task in self._tasks.items()}
        self._file = SamplesFile(path, digests)
        self._missing = [
            Question(
                key=task_id,
                number=number,
                prompt=prompts[task_id],
                is_over=end_of(self._tasks[task_id].problem.language),
            )
            for task_id, number in self._file.missing(num_samples)
        ]
        self.num_samples = num_samples * len(tasks)
        """That the file will hold of these tasks."""

    @property
    def num_missing(self) -> int:
        """Samples that the file does not hold yet."""
        return len(self._missing)

    def run(self) -> Iterator[Answered]:
        """Writes what is missing, each sample at once, and yields it."""
        found = answers(self._engine, self._missing, self._sampling)
        return self._file.add(found, self._fields)

    def _fields(self, answered: Answered) -> Row:
        task = self._tasks[answered.question.key]
        row: Row = {"generation": cleaned(answered.text, task.problem.language)}
        return row | ({"translated_from": task.translated_from} if task.translated_from else {})


def end_of(language: str) -> IsOver:
    """Returns what tells whether a growing text in a language holds a whole answer.

    A text is read through only where its last piece can have ended something.
    """

    def python(text: str, piece: str) -> bool:
        begins_line = "\n" in text[-len(piece) - 1 :] or text == piece
        return begins_line and not piece.isspace() and finished(text, language) is not None

    def braces(text: str, piece: str) -> bool:
        can_end = any(char in piece for char in "}(m")  # a bracket, or the head of `main`
        return can_end and finished(text, language) is not None

    return python if language == "python" else braces


def _prompt(engine: Engine, task: Task) -> Prompt:
    prompt = continuation_prompt(task.prompt, engine.tokenizer, engine.layout)
    try:
        opening = len(engine.layout.opening(engine.tokenizer))
        check_room(prompt, opening, engine.max_request_tokens)
    except ValueError as error:
        raise ValueError(
            f"{task.problem.task_id} is too long for this model ({error}): leave its language away "
            "with --language, or use a model with a longer context"
        ) from error
    return prompt
