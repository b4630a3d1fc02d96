"""Answers prompts together: prefill, then one column at a time, blank after blank."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from glm_core.infer.answer import Answer, Vocabulary, accept_rows
from glm_core.infer.batch import DecodingBatch, Place, RowStart
from glm_core.infer.beam import beam_search
from glm_core.infer.beginning import Beginning
from glm_core.infer.blanks import Prompt, check_room
from glm_core.infer.grammar import CompiledGrammar
from glm_core.infer.layout import Layout
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.prompt_cache import PromptCache
from glm_core.infer.sampling import Sampler, SamplingConfig
from glm_core.model.transformer import Transformer
from glm_core.tokenizer.protocol import Tokenizer


@dataclass(frozen=True)
class Delta:
    """New text of one answer."""

    prompt: int
    """Index of the prompt in the batch."""
    blank: int
    """Index of the blank in the prompt."""
    text: str


@dataclass
class Request:
    """A prompt being answered: what an engine keeps per request."""

    index: int
    prompt: Prompt
    sampler: Sampler
    answers: list[Answer] = field(default_factory=list)

    def seen_ids(self, vocabulary: Vocabulary) -> list[int]:
        """Returns the text tokens of the prompt and of the answers so far."""
        special_ids = vocabulary.tokenizer.special_ids
        tokens = [token for token in self.prompt.context_ids if token not in special_ids]
        for answer in self.answers:
            tokens += answer.tokens
        return tokens


class Decoder:
    """Decodes the answers of several prompts.

    A prompt's answers do not depend on the others in the batch: each has its own sampler, and
    padding is invisible.

    Args:
        model: in evaluation mode.
        configs: one per prompt.
        marks: special ids that answers may hold.
        grammar: what every answer must be.
        cache: columns of an earlier answer, for the only prompt of a causal model without beams;
            keeps those of this one.

    Raises:
        ValueError: a prompt or its answers do not fit into the model's context.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        layout: Layout,
        prompts: Sequence[Prompt],
        configs: Sequence[SamplingConfig],
        marks: Collection[int] = (),
        cache: PromptCache | None = None,
        grammar: CompiledGrammar | Beginning | None = None,
    ) -> None:
        self.model = model
        self.cache = cache
        self.layout = layout
        self.limit = model.config.max_position_embeddings
        self.vocabulary = Vocabulary(tokenizer, model.config.vocab_size, marks)
        self.opening = layout.opening(tokenizer)
        for prompt in prompts:
            check_room(prompt, len(self.opening), self.limit)
        self.requests = [
            Request(
                index,
                prompt,
                self.vocabulary.sampler(config, grammar=grammar),
            )
            for index, (prompt, config) in enumerate(zip(prompts, configs, strict=True))
        ]

    def run(self) -> Iterator[Delta]:
        """Decodes everything; yields text as it becomes certain."""
        if self.cache is None:
            yield from self._run(self._prefill())
            return
        batch = self._resume(self.cache)
        try:
            yield from self._run(batch)
        finally:
            (request,) = self.requests
            answers = [token for answer in request.answers for token in answer.tokens]
            self.cache.keep(batch, [*request.prompt.context_ids, *answers])

    def _run(self, batch: DecodingBatch) -> Iterator[Delta]:
        rows = list(self.requests)
        for blank in range(max(len(request.prompt.slots) for request in rows)):
            if blank > 0:
                rows = self._open_blank(batch, rows, blank)
            for row, request in enumerate(rows):
                request.answers.append(self._new_answer(request, batch.columns[row]))
            if rows[0].sampler.config.num_beams > 1:
                yield self._beam(batch, rows[0])
            else:
                yield from self._decode(batch, rows)

    def _prefill(self) -> DecodingBatch:
        starts = []
        for request in self.requests:
            ids = list(request.prompt.context_ids)
            places = [(column, 0) for column in range(len(ids))]
            places += self._places(request, 0, len(self.opening), start=0)
            prefix_len = self.layout.prefix_len(len(ids))
            starts.append(RowStart(ids + self.opening, places, prefix_len))
        longest = max(len(start.input_ids) for start in starts)
        new = max(request.sampler.config.max_new_tokens for request in self.requests)
        return DecodingBatch(self.model, starts, min(longest + new, self.limit + 1))

    def _resume(self, cache: PromptCache) -> DecodingBatch:
        """Lets the model read what the cache has not of the only prompt."""
        (request,) = self.requests
        ids = list(request.prompt.context_ids)
        assert not self.opening and self.layout.prefix_len(len(ids)) == 0
        taken = cache.take(ids)
        if taken is None:
            return self._prefill()
        batch, count = taken
        batch.extend(ids[count:], [(column, 0) for column in range(count, len(ids))])
        return batch

    def _places(self, request: Request, blank: int, count: int, start: int) -> list[Place]:
        """Returns the places of inputs start..start+count-1 of a blank; 0 is the opening token."""
        context_len, slot = len(request.prompt.context_ids), request.prompt.slots[blank]
        return [
            self.layout.position(context_len, slot, step) for step in range(start, start + count)
        ]

    def _new_answer(self, request: Request, columns: int) -> Answer:
        later = len(request.prompt.slots) - len(request.answers) - 1
        budget = self.limit - columns - later * (len(self.opening) + 1)
        seen_ids = request.seen_ids(self.vocabulary)
        continues = bool(request.prompt.text)
        return Answer(request.sampler, self.vocabulary, seen_ids, budget, continues)

    def _open_blank(self, batch: DecodingBatch, rows: list[Request], blank: int) -> list[Request]:
        """Leaves the finished rows behind and feeds the others the opening of their next blank."""
        keep = [row for row, request in enumerate(rows) if len(request.prompt.slots) > blank]
        rest = [rows[row] for row in keep]
        self._feed_leftovers(batch, rows)
        for row, request in enumerate(rows):
            answer = request.answers[-1]
            batch.crop(row, answer.num_fed - len(answer.tokens))
        if len(keep) < len(rows):
            batch.keep(keep)
        batch.settle()
        for step, token in enumerate(self.opening):
            batch.step([(token, self._places(r, blank, 1, step)[0]) for r in rest])
        return rest

    def _feed_leftovers(self, batch: DecodingBatch, rows: list[Request]) -> None:
        """An answer cut at its longest has a last token that the model has not seen."""
        if any(len(r.answers[-1].tokens) > r.answers[-1].num_fed for r in rows):
            batch.step([self._next_input(request) for request in rows])

    def _next_input(self, request: Request) -> tuple[int, Place] | None:
        answer = request.answers[-1]
        token = answer.next_input()
        if token is None:
            return None
        step = len(self.opening) + answer.num_fed - 1
        return token, self._places(request, len(request.answers) - 1, 1, step)[0]

    def _decode(self, batch: DecodingBatch, rows: list[Request]) -> Iterator[Delta]:
        """Decodes the current blank of every row."""
        is_last = all(len(r.prompt.slots) == len(r.answers) for r in rows)
        while True:
            todo = [row for row, request in enumerate(rows) if not request.answers[-1].is_done]
            logits_BV = batch.logits_BV if len(todo) == len(rows) else batch.logits_BV[todo]
            texts = accept_rows(logits_BV, [rows[row].answers[-1] for row in todo])
            for row, text in zip(todo, texts, strict=True):
                if isinstance(text, Exception):
                    raise text
                yield Delta(rows[row].index, len(rows[row].answers) - 1, text)
            alive = [row for row, request in enumerate(rows) if not request.answers[-1].is_done]
            if not alive:
                return
            if is_last and 2 * len(alive) <= len(rows):
                batch.keep(alive)
                rows = [rows[row] for row in alive]
            batch.step([self._next_input(request) for request in rows])

    def _beam(self, batch: DecodingBatch, request: Request) -> Delta:
        """Searches the current blank of the only row, then shows the model the answer found."""
        answer, blank = request.answers[-1], len(request.answers) - 1
        before = batch.columns[0]

        def place(index: int) -> Place:
            return self._places(request, blank, 1, len(self.opening) + index)[0]

        found = beam_search(batch, answer, place)
        text = "".join(
            answer.append(TokenLogprob(token, logprob))
            for token, logprob in zip(found.tokens, found.logprobs, strict=True)
        )
        assert answer.is_done
        batch.keep([0])
        batch.crop(0, batch.columns[0] - before)
        batch.settle()
        if answer.tokens and blank + 1 < len(request.prompt.slots):
            count = len(answer.tokens)
            places = self._places(request, blank, count, len(self.opening))
            batch.extend(answer.tokens, places)
            answer.num_fed = count
        return Delta(request.index, blank, text)
