"""A model fills holes, many at a time, into a file that can grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from codegeex.complete.healing import half_token
from codegeex.complete.prefix_only import prefix_only_ids
from codegeex.evaluate.answers import Answered, Question, answers
from codegeex.evaluate.infilling.task import HoleTask, Tasks
from codegeex.evaluate.jsonl import Row
from codegeex.evaluate.samples_file import SamplesFile, settings_digest
from codegeex.fim import FimFormat, fim_ids
from codegeex.hole import Hole
from glm_core.infer.blanks import Prompt, ids_prompt
from glm_core.infer.engine import Engine
from glm_core.infer.sampling import SamplingConfig
from glm_core.tokenizer.specials import EOS


class Filling:
    """Completions of holes in a file: those that it holds, and those that are missing.

    Args:
        engine: with the model.
        format: how the model was taught to fill in; None: it sees only what stands before a hole.
        tasks: the holes.
        num_samples: for each.
        sampling: how; `max_new_tokens` is the longest completion.
        path: of the samples; made where it does not exist.
        model: its name.
        heals: whether the prompt's last tokens are taken back where they may be half a token.

    Raises:
        ValueError: the file holds something else, or samples of another model or other settings;
            or the model's context is too short.
    """

    def __init__(
        self,
        engine: Engine,
        format: FimFormat | None,
        tasks: Tasks,
        num_samples: int,
        sampling: SamplingConfig,
        path: Path,
        model: str,
        heals: bool = True,
    ) -> None:
        self._engine = engine
        self._format = format
        self._sampling = sampling
        self._tasks = tasks
        self._heals = heals
        stops = (EOS,) if format is None else format.stops
        tokenizer = engine.tokenizer
        self._stop_ids = tuple(tokenizer.token_id(name) for name in stops if tokenizer.has(name))
        name = "l2r" if format is None else format.name
        digests = {
            task_id: settings_digest(model, sampling, f"{name} {heals} {task.hole!r}")
            for task_id, task in tasks.items()
        }
        self._file = SamplesFile(path, digests)
        self._missing = self._file.missing(num_samples)
        self.num_samples = num_samples * len(tasks)
        """That the file will hold of these holes."""

    @property
    def num_missing(self) -> int:
        """Completions that the file does not hold yet."""
        return len(self._missing)

    def run(self) -> Iterator[Answered]:
        """Writes what is missing, each completion at once, and yields it."""
        questions = (
            self._question(self._tasks[task_id], number) for task_id, number in self._missing
        )
        found = answers(self._engine, questions, self._sampling)
        return self._file.add(found, self._fields)

    def _question(self, task: HoleTask, number: int) -> Question:
        hole = task.hole
        half = half_token(hole.prefix, self._engine.tokenizer) if self._heals else ""
        return Question(
            key=task.task_id,
            number=number,
            prompt=self._prompt(replace(hole, prefix=hole.prefix.removesuffix(half))),
            is_over=task.is_over,
            begins=half,
            stop_ids=self._stop_ids,
        )

    def _prompt(self, hole: Hole) -> Prompt:
        layout, tokenizer = self._engine.layout, self._engine.tokenizer
        ids = layout.frame(list(self._ids(hole)), tokenizer)
        return replace(ids_prompt(ids, tokenizer, layout), text="code")  # it is not empty

    def _ids(self, hole: Hole) -> Sequence[int]:
        context, tokenizer = self._engine.max_request_tokens, self._engine.tokenizer
        frame = len(self._engine.layout.frame([], tokenizer))
        room = context - frame - min(self._sampling.max_new_tokens + 1, context // 2)
        if self._format is None:
            return prefix_only_ids(hole, tokenizer, room)
        return fim_ids(hole, self._format, tokenizer, room)

    def _fields(self, answered: Answered) -> Row:
        task = self._tasks[answered.question.key]
        return {"completion": task.truncate(answered.text)}
