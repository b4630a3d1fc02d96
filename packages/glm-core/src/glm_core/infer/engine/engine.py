"""Many requests on one model: the thread that steps, and the door to it.

with Engine(*load_model("nano-text")) as engine:
    for piece in engine.submit(request):
        print(piece.text, end="")
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from glm_core.infer.engine.config import EngineConfig
from glm_core.infer.engine.embeddings import Embedding, Embeddings
from glm_core.infer.engine.errors import (
    EngineBusy,
    EngineDraining,
    EngineError,
    EngineFailed,
    RequestCancelled,
)
from glm_core.infer.engine.intake import Intake
from glm_core.infer.engine.job import Job
from glm_core.infer.engine.memory import cache_dtype, pages_for
from glm_core.infer.engine.pace import Pace
from glm_core.infer.engine.request import EngineRequest
from glm_core.infer.engine.scheduler import Scheduler
from glm_core.infer.engine.stats import EngineStats, Recorder
from glm_core.infer.engine.ticket import Pending, Ticket, wake
from glm_core.infer.layout import Layout, layout_for
from glm_core.infer.paged import Runner
from glm_core.model.transformer import Transformer
from glm_core.tokenizer.protocol import Tokenizer

logger = logging.getLogger(__name__)

_LONGEST_RETRY_S = 60.0
_RETRY_AFTER_DRAINING_S = 10.0


class Engine:
    """Answers requests together, as they come; a thread of its own steps the model.

    All methods may be called from any thread, and `submit` from an asyncio loop too: it never
    waits for the model. An answer does not depend on what else is being answered.

    Args:
        model: is set to evaluation mode; nobody else may use it while the engine is open.
        tokenizer: the one it was trained with.
        layout: where the model expects prompt and answer; by default what its config says.
        config: limits.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        layout: Layout | None = None,
        config: EngineConfig | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.layout = layout_for(model.config) if layout is None else layout
        self.config = config or EngineConfig()
        longest = model.config.max_position_embeddings
        self.max_request_tokens = min(longest, self.config.max_request_tokens or longest)
        """Tokens of the longest prompt with its answer."""
        num_pages = pages_for(model, self.config, self.max_request_tokens)
        self.runner = Runner(model, num_pages, cache_dtype(model, self.config))
        self._recorder = Recorder()
        self._scheduler = Scheduler(
            self.runner,
            self.config.max_running,
            Pace(self.config.prefill_chunk, self.config.prefill_seconds),
            tokenizer.vocab_size,
            self._recorder,
        )
        self._embeddings = Embeddings(self.runner, self._recorder)
        self._intake = Intake(
            self._scheduler,
            tokenizer,
            self.layout,
            num_logits=model.config.vocab_size,
            longest=self.max_request_tokens,
            max_running=self.config.max_running,
        )
        self._numbers = itertools.count(1)
        self._wanted = threading.Condition()
        """Held by whoever changes what follows; told when there is something to do."""
        self._added: list[Job | Embedding] = []
        self._dropped: list[Job | Embedding] = []
        self._is_draining = self._is_closing = False
        self._fault = ""
        """Why the engine has stopped; empty while it has not."""
        self._thread = threading.Thread(target=self._run, name="glm-engine", daemon=True)
        self._thread.start()

    def submit(self, request: EngineRequest) -> Ticket:
        """Puts a request into the queue.

        Whatever can be made before the request's turn is made here, in the caller's thread: its
        grammar, which may take a while when it is new, and lists as long as the prompt.

        Raises:
            ValueError: the request can never be answered: it says why.
            EngineBusy: the queue is full.
            EngineDraining: the engine takes nothing new.
            EngineFailed: the engine has stopped.
        """
        self._check_open()
        job = self._intake.job(request, next(self._numbers), self._drop)
        with self._wanted:
            self._check_open()
            older = self._jobs_of(request.client) if request.newest_wins else []
            self._check_room(job, older)
            self._dropped += older
            self._add(job)
        return job.ticket

    def embed(self, texts: Sequence[Sequence[int]]) -> Pending[Tensor]:
        """Asks for the vectors of texts, given as ids: fp32 [N, D], each of length 1.

        Raises:
            ValueError: a text is empty, too long, or holds an id outside the vocabulary.
            EngineBusy: the queue is full.
            EngineDraining: the engine takes nothing new.
            EngineFailed: the engine has stopped.
        """
        self._intake.check_texts(texts)
        ticket: Pending[Tensor] = Pending(f"e{next(self._numbers)}", lambda: self._drop(embedding))
        embedding = Embedding(texts, ticket)
        with self._wanted:
            self._check_open()
            if len(self._embeddings.queue) >= self.config.max_queued:
                raise self._busy(f"{self.config.max_queued} embeddings are waiting")
            self._add(embedding)
        return ticket

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that a request's `adapter` can have."""
        return self.runner.adapters

    def add_adapter(self, name: str, folder: Path | str) -> None:
        """Reads an adapter, which requests can name from now on.

        Args:
            folder: LoRA as PEFT writes it, or a prefix of P-tuning v2.

        Raises:
            ValueError: the name is empty or taken.
            CheckpointError: there is no adapter, or one of another model.
        """
        self.runner.add_adapter(name, folder)

    def stats(self) -> EngineStats:
        """Returns what the engine has done and holds."""
        pages_free = self.runner.num_free_pages
        return self._recorder.stats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting) + len(self._added),
            pages_used=self.runner.num_pages - pages_free,
            pages_free=pages_free,
        )

    @property
    def has_failed(self) -> bool:
        """Whether the engine has stopped for a fault of its own and answers nothing any more."""
        return bool(self._fault)

    def drain(self, timeout_s: float | None = None) -> bool:
        """Finishes what was submitted, takes nothing new, and closes.

        Args:
            timeout_s: seconds after which what is left is cancelled; None waits for all.

        Returns:
            Whether everything ended by itself.
        """
        with self._wanted:
            self._is_draining = True
            finished = self._wanted.wait_for(lambda: self._is_idle or bool(self._fault), timeout_s)
        self.close()
        return finished and not self._fault

    def close(self) -> None:
        """Cancels everything and stops the thread; more calls do nothing."""
        with self._wanted:
            self._is_draining = self._is_closing = True
            self._wanted.notify_all()
        self._thread.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._fault:
            raise EngineFailed(self._fault)
        if self._is_draining:
            raise EngineDraining(_RETRY_AFTER_DRAINING_S)

    def _check_room(self, job: Job, leaving: Sequence[Job]) -> None:
        """The lock is held."""
        waiting = [one for one in self._jobs() if not one.is_started and one not in leaving]
        if len(waiting) >= self.config.max_queued:
            raise self._busy(f"{len(waiting)} requests are waiting")
        most = self.config.max_queued_tokens or 4 * self.runner.num_pages * self.runner.page_size
        tokens = sum(one.num_tokens for one in waiting)
        if waiting and tokens + job.num_tokens > most:
            raise self._busy(f"requests of {tokens} tokens are waiting")

    def _jobs(self) -> list[Job]:
        """Requests that have not ended; the lock is held. The thread moves them, in this order."""
        added = [one for one in self._added if isinstance(one, Job)]
        jobs = [*added, *self._scheduler.waiting, *self._scheduler.running]
        return list(dict.fromkeys(jobs))

    def _jobs_of(self, client: str) -> list[Job]:
        return [job for job in self._jobs() if job.request.client == client]

    def _busy(self, message: str) -> EngineBusy:
        """Estimates the time in which one of the requests ends, at the present rate."""
        self._recorder.counters["refused"] += 1
        jobs = self._jobs()
        tokens = sum(job.num_tokens for job in jobs) / max(len(jobs), 1)
        rate = self._recorder.rate.per_second(time.monotonic())
        seconds = tokens / rate if rate else 1.0
        return EngineBusy(message, min(max(math.ceil(seconds), 1.0), _LONGEST_RETRY_S))

    def _add(self, work: Job | Embedding) -> None:
        self._recorder.counters["submitted"] += 1
        self._added.append(work)
        self._wanted.notify_all()

    def _drop(self, work: Job | Embedding) -> None:
        with self._wanted:
            self._dropped.append(work)
            self._wanted.notify_all()

    @property
    def _is_idle(self) -> bool:
        """The lock is held, or the thread asks."""
        queues = self._added, self._dropped, self._embeddings.queue
        return self._scheduler.is_idle and not any(queues)

    def _run(self) -> None:
        """The thread."""
        try:
            while self._collect():
                self._scheduler.step()
                self._embeddings.step()
                self._recorder.counters["steps"] += 1
                self._tell()
            self._end_all()
        except BaseException as error:
            logger.exception("the engine has stopped")
            self._fail(f"the engine has stopped: {error!r}")

    def _end_all(self) -> None:
        """Cancels everything."""
        with self._wanted:
            self._take_added()
            self._dropped = []
        error = RequestCancelled("the engine was closed")
        for job in self._jobs():
            self._scheduler.end(job, error)
        for embedding in tuple(self._embeddings.queue):
            self._embeddings.end(embedding, error)
        self._tell()

    def _fail(self, fault: str) -> None:
        """Tells everybody that nothing more will come; the pages stay as they are."""
        with self._wanted:
            self._fault = fault
            tickets: list[Pending[Any]] = [job.ticket for job in self._jobs()]
            tickets += [one.ticket for one in (*self._added, *self._embeddings.queue)]
            for ticket in tickets:
                if not ticket.is_done:
                    ticket.settle(EngineFailed(fault))
            self._wanted.notify_all()
        wake(tickets)

    def _collect(self) -> bool:
        """Waits for something to do and takes what was added and dropped; False to end."""
        with self._wanted:
            if self._is_idle:
                self._wanted.notify_all()  # somebody may wait for this in `drain`
            self._wanted.wait_for(lambda: self._is_closing or not self._is_idle)
            self._take_added()
            dropped, self._dropped = self._dropped, []
        for work in dropped:
            self._end(work, RequestCancelled("the request was cancelled"))
        return not self._is_closing

    def _take_added(self) -> None:
        """The lock is held."""
        for work in self._added:
            if isinstance(work, Job):
                self._scheduler.add(work)
            else:
                self._embeddings.queue.append(work)
        self._added = []

    def _end(self, work: Job | Embedding, error: EngineError) -> None:
        if isinstance(work, Job):
            self._scheduler.end(work, error)
        else:
            self._embeddings.end(work, error)

    def _tell(self) -> None:
        """Wakes those who wait for what the step brought."""
        changed, self._scheduler.changed = self._scheduler.changed, {}
        vectors, self._embeddings.changed = self._embeddings.changed, []
        if changed or vectors:
            wake([*changed, *vectors])
