"""One answer of a request: what the model must be given next, and what came of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glm_core.infer.answer import Answer, Vocabulary
from glm_core.infer.blanks import Prompt
from glm_core.infer.engine.request import BlankAnswer
from glm_core.infer.layout import Layout
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.paged import PagedText
from glm_core.infer.sampling import Sampler

if TYPE_CHECKING:
    from glm_core.infer.engine.job import Job

Place = tuple[int, int]
"""Position and block position of a column."""


class Script:
    """What the answers of one request have in common.

    Args:
        prompt: with its blanks.
        layout: where the model expects them.
        vocabulary: with the request's marks.
        limit: columns that prompt and answer may take.
    """

    def __init__(self, prompt: Prompt, layout: Layout, vocabulary: Vocabulary, limit: int) -> None:
        self.prompt = prompt
        self.vocabulary = vocabulary
        self.limit = limit
        self.opening = layout.opening(vocabulary.tokenizer)
        self._layout = layout
        self.num_context = len(prompt.context_ids)
        special_ids = vocabulary.tokenizer.special_ids
        self.seen_ids = [token for token in prompt.context_ids if token not in special_ids]
        """Text tokens of the prompt."""

    def first_inputs(self) -> tuple[list[int], list[Place]]:
        """Returns what is read before the first answer: the context and the first opening."""
        places = [(column, 0) for column in range(self.num_context)]
        places += [self.place(0, step) for step in range(len(self.opening))]
        return [*self.prompt.context_ids, *self.opening], places

    @property
    def prefix_len(self) -> int:
        """Columns of the context that all see."""
        return self._layout.prefix_len(self.num_context)

    def place(self, blank: int, step: int) -> Place:
        """Returns the place of input `step` of a blank; 0 is the first of its opening."""
        return self._layout.position(self.num_context, self.prompt.slots[blank], step)

    def columns(self, max_new_tokens: int) -> int:
        """Returns how many columns prompt and answers may come to need."""
        answers = len(self.prompt.slots) * (len(self.opening) + max_new_tokens)
        return min(self.limit, self.num_context + answers)


class Row:
    """One answer, decoded blank after blank.

    Args:
        job: the request it belongs to.
        choice: which of the request's answers.
        script: what it has in common with the others.
        sampler: its own.
        text: its columns in the runner, which has read the prompt.
    """

    def __init__(
        self, job: Job, choice: int, script: Script, sampler: Sampler, text: PagedText
    ) -> None:
        self.job = job
        self.choice = choice
        self.text = text
        self.num_columns = script.num_context + len(script.opening)
        """Columns that the model has read."""
        self.inputs: deque[tuple[int, Place]] = deque()
        """What it must read before the next token can be chosen."""
        self.answers: list[BlankAnswer] = []
        """Of the blanks before the present one."""
        self.last_token_at = 0.0
        self._is_enough = job.watchers[choice]
        self._draft = job.request.draft
        """What the answer may become; empty once it has become something else."""
        self._script = script
        self._sampler = sampler
        self._seen = list(script.seen_ids)
        self._first_column = 0
        self.answer = self._open()

    @property
    def is_done(self) -> bool:
        """Whether the last blank is filled."""
        return len(self.answers) == len(self._script.prompt.slots)

    @property
    def blank(self) -> int:
        """The blank being filled."""
        return len(self.answers)

    def append(self, chosen: TokenLogprob) -> BlankAnswer | None:
        """Takes the token chosen for the present blank, and gives its text to the ticket.

        Returns:
            The answer, if the token ended it.
        """
        answer, blank = self.answer, self.blank
        if self._draft[len(answer.tokens) : len(answer.tokens) + 1] != (chosen.token,):
            self._draft = ()
        text = answer.append(chosen)
        if text and not answer.is_done and self._is_enough is not None and self._is_enough(text):
            text += answer.stop()
        is_mark = chosen.token in self._script.vocabulary.marks and answer.stop_id is None
        mark = chosen.token if is_mark else None
        end = self._end() if answer.is_done else None
        if end is None:
            self._feed(answer, blank)
        if text or is_mark or end is not None or self.job.request.logprobs is not None:
            self.job.ticket.put(self.choice, blank, text, answer.take_logprobs(), mark, end)
        return end

    def guess(self) -> Sequence[tuple[int, Place]]:
        """Returns tokens that may come after the next input, all of which there is room for."""
        answer = self.answer
        if not self._draft or len(self.inputs) != 1:
            return ()
        count = answer.num_fed
        step = len(self._script.opening) + count
        guessed = self._draft[count : answer.max_tokens - 1]
        return [(token, self._script.place(0, step + index)) for index, token in enumerate(guessed)]

    def next_blank(self) -> int | None:
        """Goes on to the blank after the one that was just filled.

        Returns:
            To how many columns the sequence must be cropped, because it has read tokens that a
            stop string dropped; None if to none.
        """
        answer, script, self._draft = self.answer, self._script, ()
        stale = answer.num_fed > len(answer.tokens)
        if stale:
            self.num_columns = self._first_column + len(answer.tokens)
        self._feed(answer, self.blank - 1)
        for step, token in enumerate(script.opening):
            self.inputs.append((token, script.place(self.blank, step)))
        self._seen += answer.tokens
        self.answer = self._open()
        return self.num_columns if stale else None

    def _open(self) -> Answer:
        """Returns the answer of the present blank, empty; its opening is read or in `inputs`."""
        script = self._script
        self._first_column = self.num_columns + len(self.inputs)
        later = len(script.prompt.slots) - self.blank - 1
        budget = script.limit - self._first_column - later * (len(script.opening) + 1)
        continues = bool(script.prompt.text)
        return Answer(self._sampler, script.vocabulary, self._seen, budget, continues)

    def _end(self) -> BlankAnswer:
        end = BlankAnswer.of(self._script.prompt.slots[self.blank].marker, self.answer)
        self.answers.append(end)
        return end

    def _feed(self, answer: Answer, blank: int) -> None:
        token = answer.next_input()
        if token is not None:
            step = len(self._script.opening) + answer.num_fed - 1
            self.inputs.append((token, self._script.place(blank, step)))
