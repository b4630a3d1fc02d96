"""Samples of HumanEval-X by a model: generation and translation, into a file that can grow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codegeex.evaluate.answers import Answered, IsOver, Question, answers
from codegeex.evaluate.cleanup import cleaned, finished
from codegeex.evaluate.jsonl import Row, append_row, cut_off_torn_line, read_rows
from codegeex.evaluate.problems import TITLES, Problem
from codegeex.evaluate.prompts import PromptStyle, generation_prompt, translation_prompt
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
        self._path = path
        self._tasks = {task.problem.task_id: task for task in tasks}
        self._digests = {task.problem.task_id: _digest(task, sampling, model) for task in tasks}
        prompts = {task_id: _prompt(engine, task) for task_id, task in self._tasks.items()}
        known = self._known()
        self._missing = [
            Question(
                key=task_id,
                number=number,
                prompt=prompt,
                is_over=end_of(self._tasks[task_id].problem.language),
            )
            for task_id, prompt in prompts.items()
            for number in range(num_samples)
            if (task_id, number) not in known
        ]
        self.num_samples = num_samples * len(tasks)
        """That the file will hold of these tasks."""

    @property
    def num_missing(self) -> int:
        """Samples that the file does not hold yet."""
        return len(self._missing)

    def run(self) -> Iterator[Answered]:
        """Writes what is missing, each sample at once, and yields it."""
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            for answered in answers(self._engine, self._missing, self._sampling):
                append_row(file, self._row(answered))
                yield answered

    def _known(self) -> set[tuple[str, int]]:
        """Returns task_id and number of the samples in the file."""
        known: set[tuple[str, int]] = set()
        if not self._path.exists():
            return known
        for line, row in read_rows(self._path, may_be_cut=True):
            task_id, number = row.get("task_id"), row.get("number")
            if not isinstance(task_id, str) or not isinstance(number, int):
                raise ValueError(
                    f"{self._path}, line {line} was not written by this command: name another file"
                )
            if row.get("settings") != self._digests.get(task_id, row.get("settings")):
                raise ValueError(
                    f"{self._path}, line {line} is a sample of another model or of other settings: "
                    "name another file, or remove this one"
                )
            known.add((task_id, number))
        cut_off_torn_line(self._path)
        return known

    def _row(self, answered: Answered) -> Row:
        task_id = answered.question.key
        task = self._tasks[task_id]
        row: Row = {
            "task_id": task_id,
            "number": answered.question.number,
            "generation": cleaned(answered.text, task.problem.language),
            "finish": answered.finish,
            "tokens": answered.num_tokens,
            "settings": self._digests[task_id],
        }
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


def _digest(task: Task, sampling: SamplingConfig, model: str) -> str:
    """Returns what tells the samples of a task from those of other settings."""
    said = f"{model}\0{sampling!r}\0{task.prompt}"
    return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()[:16]


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
