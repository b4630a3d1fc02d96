"""Which columns the model reads in a step, for whom, and what becomes of the logits."""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from glm_core.infer.choose_rows import choose_rows
from glm_core.infer.engine.errors import EngineError, RequestFailed, RequestTimedOut
from glm_core.infer.engine.job import Job
from glm_core.infer.engine.pace import Pace
from glm_core.infer.engine.request import Outcome
from glm_core.infer.engine.row import Row
from glm_core.infer.engine.stats import Recorder
from glm_core.infer.engine.ticket import Ticket
from glm_core.infer.logprobs import TokenLogprob, prompt_logprobs
from glm_core.infer.paged import PagesExhausted, Runner, Work, stack_rows

Wants = Literal["none", "last", "all"]


@dataclass(slots=True)
class _Task:
    """One text's part of a step."""

    job: Job
    row: Row | None
    """None: the prompt is read."""
    work: Work


class Scheduler:
    """Continuous batching: requests come and go between any two steps. For one thread.

    A step gives every answer that is being written its next column, and reads some tokens of
    prompts beside. A request starts when rows and pages for its longest
    answers are free, and keeps them until it ends; so nothing that has started is ever put off.

    Args:
        runner: the model and its pages.
        max_running: answers decoded together.
        pace: how many tokens of prompts are read in a step.
        num_ids: rows of the model's head that are tokens.
        recorder: is told what happens.
    """

    def __init__(
        self,
        runner: Runner,
        max_running: int,
        pace: Pace,
        num_ids: int,
        recorder: Recorder,
    ) -> None:
        self.runner = runner
        self.waiting: list[Job] = []
        """In the order in which they will be served."""
        self.running: list[Job] = []
        """In the order in which they were started."""
        self.changed: dict[Ticket, None] = {}
        """Tickets that have something new since the last step began."""
        self._max_running = max_running
        self._pace = pace
        self._num_ids = num_ids
        self._recorder = recorder
        self._num_rows = 0
        """Answers being written or waiting for their prompt to be read."""
        self._is_full = False
        """Whether the first of the queue must wait until something ends."""
        self._rows: list[Row] = []
        self._reading: list[Job] = []

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting

    def pages_of(self, job: Job) -> int:
        """Returns how many pages a request may come to need; its answers share the prompt's."""
        one = self.runner.pages_for(job.num_columns, job.request.adapter)
        shared = len(job.ids) // self.runner.page_size
        return one + (job.request.choices - 1) * (one - shared)

    def add(self, job: Job) -> None:
        """Puts a request into the queue."""
        insort(self.waiting, job, key=lambda one: one.order)
        self._is_full = self._is_full and self.waiting[0] is not job

    def end(self, job: Job, result: Outcome | EngineError) -> None:
        """Takes a request out, wherever it is, and tells its ticket; nothing when it has ended."""
        if job.ticket.is_done:
            return
        if job in self.waiting:
            self.waiting.remove(job)
            self._is_full = False
        elif job in self.running:
            self._stop(job, keep=not isinstance(result, RequestFailed))
        job.ticket.settle(result)
        self.changed[job.ticket] = None
        self._recorder.ended(result)

    def step(self) -> None:
        """Lets the model read one more column of every answer, and a piece of the prompts."""
        self._expire()
        self._start()
        answers, prompts = list(self._answer_tasks()), list(self._prompt_tasks())
        if not answers and not prompts:
            return
        start = time.perf_counter()
        results = self._run([*answers, *prompts])
        num_read = sum(len(task.work.ids) for task in prompts)
        self._pace.add(num_read, bool(answers), time.perf_counter() - start)
        self._take([*answers, *prompts], results)

    def _expire(self) -> None:
        now = time.monotonic()
        for job in [*self.running, *self.waiting]:
            if job.deadline <= now:
                self.end(job, RequestTimedOut(job.request.timeout_s or 0.0))

    def _start(self) -> None:
        """Starts waiting requests in their order while there is room for the next one."""
        while self.waiting and not self._is_full:
            job = self.waiting[0]
            self._is_full = self._num_rows + job.request.choices > self._max_running
            if not self._is_full:
                self.running.append(job)  # first: it is always in one of the two lists
                del self.waiting[0]
                self._open(job)

    def _open(self, job: Job) -> None:
        """Begins a request, or puts it back into the queue because there are not enough pages."""
        request = job.request
        wants_all = request.prompt_logprobs is not None
        ids = job.ids[:1] if wants_all else job.ids  # of a single column nothing can be known
        try:
            text, num_cached = self.runner.open(
                ids, job.places[: len(ids)], job.script.prefix_len, request.adapter
            )
        except Exception as error:
            self.end(job, RequestFailed(error))
            return
        rest, at = job.num_columns - num_cached, len(job.ids)
        if not self.runner.reserve(text, rest, request.choices - 1, at):
            self.runner.close(text)
            self._put_back(job)
            return
        self._num_rows += request.choices
        self._reading.append(job)
        self._recorder.started(job, job.start(text, num_cached))

    def _put_back(self, job: Job) -> None:
        """Puts a request to the head of the queue again, until something ends."""
        if len(self.running) == 1:
            self.end(job, RequestFailed(PagesExhausted("the cache has not enough pages for it")))
            return
        self._is_full = True
        self.waiting.insert(0, job)
        self.running.remove(job)

    def _stop(self, job: Job, keep: bool) -> None:
        """Gives back what a running request holds."""
        self.running.remove(job)
        if job in self._reading:
            self._reading.remove(job)
            assert job.text is not None
            self.runner.close(job.text, keep)
            self._num_rows -= job.request.choices
            self._is_full = False
        for row in job.rows:
            if row in self._rows:
                self._close(row, keep)

    def _close(self, row: Row, keep: bool = True) -> None:
        self._rows.remove(row)
        self._num_rows -= 1
        self._is_full = False
        self.runner.close(row.text, keep)

    def _answer_tasks(self) -> Iterator[_Task]:
        for row in self._rows:
            guess = row.guess()[: self.runner.num_droppable(row.text)]
            ids, places = zip(row.inputs[0], *guess, strict=True)
            wants: Wants = "last" if len(row.inputs) == 1 else "none"
            yield _Task(row.job, row, Work(row.text, ids, places, "all" if guess else wants))

    def _prompt_tasks(self) -> Iterator[_Task]:
        """Prompts are read whole where that is possible, since each piece costs a forward.

        The oldest comes first. When it is longer than a step it has half of each, so that it never
        stands still, and the shortest of the others have the rest.
        """
        if not self._reading:
            return
        oldest = min(self._reading, key=lambda job: job.order)
        most = self._pace.room(has_answers=bool(self._rows))
        is_long = oldest.num_unread > most
        kept = max(most // 2 if is_long else oldest.num_unread, oldest.num_whole)
        room, may_cut = most - kept, is_long
        for job in sorted(self._reading, key=lambda job: (job.request.priority, job.num_unread)):
            count = min(job.num_unread, room)
            fits = count == job.num_unread or (may_cut and count >= job.num_whole)
            if job is not oldest and fits:
                room, may_cut = room - count, False
                yield self._prompt_task(job, count)
        yield self._prompt_task(oldest, min(oldest.num_unread, kept + max(room, 0)))

    def _prompt_task(self, job: Job, count: int) -> _Task:
        assert job.text is not None
        begin, end = job.num_read, job.num_read + count
        wants: Wants = "last" if end == len(job.ids) else "none"
        if job.request.prompt_logprobs is not None:
            wants = "all"
        return _Task(job, None, Work(job.text, job.ids[begin:end], job.places[begin:end], wants))

    def _run(self, tasks: Sequence[_Task]) -> list[Tensor | None | Exception]:
        """Steps the runner; when that fails, each text alone, to find which one it was."""
        try:
            return list(self.runner.step([task.work for task in tasks]))
        except Exception as error:
            if len(tasks) == 1:
                return [error]
        return [result for task in tasks for result in self._run([task])]

    def _take(self, tasks: Sequence[_Task], results: Sequence[Tensor | None | Exception]) -> None:
        rows: list[Row] = []
        logits: list[Tensor] = []
        for task, result in zip(tasks, results, strict=True):
            if isinstance(result, Exception):
                self.end(task.job, RequestFailed(result))
                continue
            if task.row is not None and task.work.count > 1:
                assert result is not None
                self._follow(task.row, task.work.ids, result)
                continue
            ready = self._read_prompt(task, result) if task.row is None else _read_column(task.row)
            if result is not None:
                last_V = result[-1] if task.work.wants == "all" else result
                rows += ready
                logits += [last_V] * len(ready)
        alive = [index for index, row in enumerate(rows) if not row.job.ticket.is_done]
        if alive:
            self._choose([rows[i] for i in alive], stack_rows([logits[i] for i in alive]))

    def _follow(self, row: Row, ids: Sequence[int], logits_TV: Tensor) -> None:
        """Takes of a guess what comes true, and lets the text forget the rest.

        Args:
            ids: the answer's next input and what was guessed to come after it.
            logits_TV: after each of them.
        """
        for column in range(len(ids)):
            _read_column(row)
            self._choose([row], logits_TV[column : column + 1])
            if row not in self._rows:
                return
            is_true = ids[column + 1 : column + 2] == tuple(token for token, _ in row.inputs)
            if row.blank or not is_true:
                break
        if row.num_columns < row.text.length:
            self.runner.crop(row.text, row.num_columns)

    def _read_prompt(self, task: _Task, logits: Tensor | None) -> list[Row]:
        """Counts columns of a prompt; returns its answers when it has been read."""
        job, begin = task.job, task.job.num_read
        job.num_read += len(task.work.ids)
        if task.work.wants == "all":
            assert logits is not None
            ids = job.ids[begin + 1 : job.num_read + 1]
            job.prompt_logprobs += prompt_logprobs(
                logits[: len(ids)], ids, job.request.prompt_logprobs or 0, self._num_ids
            )
        return self._answer(job) if job.num_read == len(job.ids) else []

    def _answer(self, job: Job) -> list[Row]:
        """Begins the answers of a prompt that has been read."""
        assert job.text is not None
        texts = [job.text]
        try:
            for _ in range(job.request.choices - 1):
                texts.append(self.runner.fork(job.text))
        except Exception as error:
            for text in texts[1:]:
                self.runner.close(text, keep=False)
            self.end(job, RequestFailed(error))
            return []
        self._reading.remove(job)
        rows = job.answer(texts)
        self._rows += rows
        return rows

    def _choose(self, rows: Sequence[Row], logits_BV: Tensor) -> None:
        now = time.monotonic()
        self._recorder.tokens(len(rows), now)
        chosen = choose_rows(logits_BV, [row.answer.turn for row in rows])
        for row, token in zip(rows, chosen, strict=True):
            if row.job.ticket.is_done:
                continue  # another answer of the same request has failed
            try:
                self._append(row, token, now)
            except Exception as error:
                self.end(row.job, RequestFailed(error))

    def _append(self, row: Row, token: TokenLogprob | Exception, now: float) -> None:
        """Gives an answer its token, and turns to the next blank when that ends the present one."""
        if isinstance(token, Exception):
            raise token
        end = row.append(token)
        self.changed[row.job.ticket] = None
        self._recorder.token(row, now)
        if end is None:
            return
        if row.is_done:
            self._close(row)
            if row.job.is_done:
                self.end(row.job, row.job.outcome())
            return
        length = row.next_blank()
        if length is not None:
            self.runner.crop(row.text, length)


def _read_column(row: Row) -> list[Row]:
    """Counts the column that an answer gave; returns the row if its next token can be chosen."""
    row.inputs.popleft()
    row.num_columns += 1
    return [] if row.inputs else [row]
