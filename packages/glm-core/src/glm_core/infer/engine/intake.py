"""What is looked at before a request may wait: whatever is wrong with it is said at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from glm_core.infer.answer import Vocabulary
from glm_core.infer.engine.job import Job, new_job
from glm_core.infer.engine.request import EngineRequest
from glm_core.infer.engine.scheduler import Scheduler
from glm_core.infer.engine.ticket import Ticket
from glm_core.infer.layout import Layout
from glm_core.tokenizer.protocol import Tokenizer

_MOST_VOCABULARIES = 64
"""Kept, one for each set of marks."""


class Intake:
    """Makes jobs of requests; for any thread.

    Args:
        scheduler: what the jobs are for.
        tokenizer: the model's.
        layout: where the model expects prompt and answer.
        num_logits: rows of the model's head.
        longest: columns that prompt and answer may take together.
        max_running: answers that are decoded together.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        tokenizer: Tokenizer,
        layout: Layout,
        *,
        num_logits: int,
        longest: int,
        max_running: int,
    ) -> None:
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._num_ids = tokenizer.vocab_size
        self._layout = layout
        self._num_logits = num_logits
        self._longest = longest
        self._max_running = max_running
        self._vocabularies: dict[tuple[int, ...], Vocabulary] = {}

    def job(self, request: EngineRequest, number: int, cancel: Callable[[Job], None]) -> Job:
        """Returns a job and its ticket.

        Args:
            number: of arrival.
            cancel: gives the job up.

        Raises:
            ValueError: the request can never be answered.
        """
        if request.choices > self._max_running:
            raise ValueError(
                f"choices is {request.choices}: it must be at most {self._max_running}, the "
                "answers that this engine decodes together (engine.max_running)"
            )
        runner = self._scheduler.runner
        if request.adapter and request.adapter not in runner.adapters:
            raise ValueError(
                f"adapter {request.adapter!r} is unknown: this engine has "
                f"{', '.join(runner.adapters) or 'none'}"
            )
        outside = [token for token in request.draft if not 0 <= token < self._num_ids]
        if outside:
            raise ValueError(
                f"draft holds the id {outside[0]}: ids must lie between 0 and {self._num_ids - 1}"
            )
        vocabulary = self._vocabulary(tuple(sorted(set(request.marks))))
        ticket = Ticket(f"r{number}", lambda: cancel(job))
        job = new_job(request, ticket, number, self._layout, vocabulary, self._longest)
        needed = self._scheduler.pages_of(job)
        if needed > runner.num_pages:
            raise ValueError(
                f"the request may come to need {needed} pages of the cache, which has "
                f"{runner.num_pages}: lower max_new_tokens or choices, or give the engine more "
                "cache_bytes"
            )
        return job

    def check_texts(self, texts: Sequence[Sequence[int]]) -> None:
        """Checks ids to be embedded.

        Raises:
            ValueError: there is no text, or one is empty, too long, or outside the vocabulary.
        """
        if not texts:
            raise ValueError("there is no text to embed: give at least one")
        for ids in texts:
            if not 1 <= len(ids) <= self._longest:
                raise ValueError(
                    f"a text to embed has {len(ids)} tokens: it must have between 1 and "
                    f"{self._longest}"
                )
            if not all(0 <= token < self._tokenizer.vocab_size for token in ids):
                raise ValueError(
                    "a text to embed holds an id outside the vocabulary: ids must lie between 0 "
                    f"and {self._tokenizer.vocab_size - 1}"
                )

    def _vocabulary(self, marks: tuple[int, ...]) -> Vocabulary:
        found = self._vocabularies.get(marks)
        if found is None:
            found = Vocabulary(self._tokenizer, self._num_logits, marks)
            if len(self._vocabularies) < _MOST_VOCABULARIES:
                self._vocabularies[marks] = found
        return found
