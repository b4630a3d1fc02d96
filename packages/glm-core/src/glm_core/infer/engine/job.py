"""A request inside the engine: from the queue to its last token."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from glm_core.infer.answer import Vocabulary
from glm_core.infer.blanks import check_room
from glm_core.infer.choices import seed_of_choice
from glm_core.infer.engine.request import EngineRequest, Outcome, Timings, Usage, Watcher
from glm_core.infer.engine.row import Row, Script
from glm_core.infer.engine.ticket import Ticket
from glm_core.infer.grammar import compile_grammar
from glm_core.infer.layout import Layout
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.paged import PagedText
from glm_core.infer.sampling import Sampler


class Job:
    """A request, how far it is, and who waits for it.

    Args:
        request: what was asked.
        ticket: what the asker holds.
        number: of arrival.
        script: what its answers have in common.
        samplers: one for each answer.
        watchers: one for each answer; None where nobody watches.
    """

    def __init__(
        self,
        request: EngineRequest,
        ticket: Ticket,
        number: int,
        script: Script,
        samplers: Sequence[Sampler],
        watchers: Sequence[Watcher | None],
    ) -> None:
        self.request = request
        self.ticket = ticket
        self.order = (request.priority, number)
        self.script = script
        self.ids, self.places = script.first_inputs()
        self.num_columns = script.columns(request.sampling.max_new_tokens)
        """Columns that one answer may come to need, the prompt's included."""
        self.text: PagedText | None = None
        """Its columns in the runner while the prompt is read."""
        self.num_read = 0
        """Columns of `ids` that the model has read."""
        self.rows: list[Row] = []
        """Its answers, once the prompt is read."""
        self.prompt_logprobs: list[TokenLogprob] = []
        self.watchers = watchers
        self._samplers = samplers
        self._num_cached = 0
        self._arrived = time.monotonic()
        self.deadline = self._arrived + (
            math.inf if request.timeout_s is None else request.timeout_s
        )
        """When it is given up, in seconds of the monotonic clock."""
        self._started = self._read = self._first_token = self._arrived

    @property
    def is_started(self) -> bool:
        """Whether its prompt was begun."""
        return self.text is not None or bool(self.rows)

    @property
    def num_tokens(self) -> int:
        """Tokens that it may come to, all answers together."""
        prompt = len(self.ids)
        return prompt + self.request.choices * (self.num_columns - prompt)

    @property
    def num_unread(self) -> int:
        """Columns of the prompt that the model has yet to read."""
        return len(self.ids) - self.num_read

    @property
    def num_whole(self) -> int:
        """Fewest columns of the prompt that can be read next: a context seen as a whole is one."""
        return max(self.script.prefix_len - self.num_read, 1)

    @property
    def is_done(self) -> bool:
        """Whether every answer has ended."""
        return bool(self.rows) and all(row.is_done for row in self.rows)

    def start(self, text: PagedText, num_cached: int) -> float:
        """Notes that its prompt is begun; returns how long it waited, in seconds."""
        self.text, self.num_read, self._num_cached = text, num_cached, num_cached
        self._started = time.monotonic()
        return self._started - self._arrived

    def answer(self, texts: Sequence[PagedText]) -> list[Row]:
        """Begins the answers when the prompt is read; each has a text of its own from now on.

        Args:
            texts: one for each answer.
        """
        self._read = time.monotonic()
        self.text = None
        self.rows = [
            Row(self, choice, self.script, sampler, text)
            for choice, (sampler, text) in enumerate(zip(self._samplers, texts, strict=True))
        ]
        return self.rows

    def note_first_token(self, now: float) -> float:
        """Notes when the first token came; returns the seconds since the request arrived."""
        self._first_token = now
        return now - self._arrived

    @property
    def usage(self) -> Usage:
        """Tokens of the request, which must be done."""
        completion = sum(len(end.tokens) for row in self.rows for end in row.answers)
        return Usage(len(self.ids), self._num_cached, completion)

    def outcome(self) -> Outcome:
        """Returns what came of the request, which must be done."""
        wanted = self.request.prompt_logprobs is not None
        return Outcome(
            choices=tuple(tuple(row.answers) for row in self.rows),
            usage=self.usage,
            timings=Timings(
                queued_s=self._started - self._arrived,
                prompt_s=self._read - self._started,
                first_token_s=self._first_token - self._arrived,
                total_s=time.monotonic() - self._arrived,
            ),
            prompt_logprobs=tuple(self.prompt_logprobs) if wanted else None,
        )


def new_job(
    request: EngineRequest,
    ticket: Ticket,
    number: int,
    layout: Layout,
    vocabulary: Vocabulary,
    limit: int,
) -> Job:
    """Checks a request and makes everything that can be made before its turn comes.

    Args:
        vocabulary: with the request's marks.
        limit: columns that prompt and answer may take together.

    Raises:
        ValueError: the prompt does not fit, the grammar is malformed, or a setting cannot be had.
    """
    tokenizer = vocabulary.tokenizer
    check_room(request.prompt, len(layout.opening(tokenizer)), limit)
    if request.prompt_logprobs is not None and layout.has_blanks:
        raise ValueError(
            f"prompt_logprobs is {request.prompt_logprobs}: it must be None for a model with "
            "blanks, whose prompt is read as a whole and not token after token"
        )
    grammar = None if request.grammar is None else compile_grammar(request.grammar, tokenizer)
    sampling, num_top = request.sampling, request.logprobs or 0
    samplers = [
        vocabulary.sampler(
            replace(sampling, seed=seed_of_choice(sampling.seed, choice)), num_top, grammar
        )
        for choice in range(request.choices)
    ]
    watchers = [request.watch and request.watch(choice) for choice in range(request.choices)]
    script = Script(request.prompt, layout, vocabulary, limit)
    return Job(request, ticket, number, script, samplers, watchers)
