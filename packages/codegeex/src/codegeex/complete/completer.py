"""Completions of holes in files, on an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from codegeex.complete.drafts import Drafts
from codegeex.complete.fit import rules_for, stop_words
from codegeex.complete.healing import MOST_TOKENS, half_token
from codegeex.complete.line_endings import LF, with_lf
from codegeex.complete.options import Options
from codegeex.complete.pending import Pending
from codegeex.complete.prefix_only import prefix_only_ids
from codegeex.complete.raw_prompt import hole_of_text, text_ids
from codegeex.complete.rules import Rule
from codegeex.complete.shaper import Shaper, Trim
from codegeex.complete.watch import AnswerWatch
from codegeex.complete.window import visible
from codegeex.fim import FimFormat, fim_ids
from codegeex.fim.prompt import REFERENCE_SHARE
from codegeex.hole import Hole
from glm_core.infer.beginning import Begins, token_bytes
from glm_core.infer.blanks import ids_prompt
from glm_core.infer.engine import Engine, EngineRequest
from glm_core.infer.sampling import SamplingConfig
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import EOS

_CHARS_PER_TOKEN = 4
"""About what code has."""
_USUAL_ANSWER = 320
"""Tokens that few completions are longer than."""


class Completer:
    """Completes code. Every method may be called from any thread and from an asyncio loop.

    Args:
        engine: answers the requests; others may use it too.
        format: how the model was taught to fill in; None: it was not, and only goes on from the
            prefix.
        name: of the model.
        heals: whether the prompt's last tokens are taken back where they may be half a token.

    Raises:
        ValueError: the model is no causal one.
    """

    def __init__(
        self, engine: Engine, format: FimFormat | None, name: str, heals: bool = True
    ) -> None:
        if engine.layout.has_blanks:
            raise ValueError(
                f"{name} fills blanks of its own kind and is no code model: use one that was "
                "taught to fill in code, such as nano-code"
            )
        self.name = name
        self.engine = engine
        self.format = format
        self.tokenizer: Tokenizer = engine.tokenizer
        self.context = engine.max_request_tokens
        """Tokens that prompt and completion may take together."""
        self._heals = heals
        self._drafts = Drafts()
        if heals:
            token_bytes(self.tokenizer)  # sorted now, and not while somebody waits
        stops = (EOS,) if format is None else format.stops
        self._stop_ids = [
            self.tokenizer.token_id(name) for name in stops if self.tokenizer.has(name)
        ]

    def submit(self, hole: Hole, options: Options) -> Pending:
        """Asks for completions of a hole.

        Raises:
            ValueError: the request can never be answered: it says why.
            EngineBusy: the queue is full.
            EngineDraining: the engine takes nothing new.
            EngineFailed: the engine has stopped.
        """
        hole, ending = with_lf(visible(hole, self.context))
        half = half_token(hole.prefix, self.tokenizer) if self._heals else ""
        before = hole.prefix.removesuffix(half)
        ids = self._hole_ids(replace(hole, prefix=before), options)
        rules, trims = rules_for(hole, options)
        draft = self._drafts.find(before, hole.suffix)
        remember = partial(self._drafts.remember, before, hole.suffix)
        return self._ask(ids, options, rules, trims, half, ending, draft, remember)

    def submit_text(self, prompt: str, options: Options) -> Pending:
        """Asks for what follows a prompt whose special tokens are written out in it.

        For templates that a client filled in itself. Where the prompt is a hole in the model's own
        format, the rules of that hole end the text and trim it.

        Raises:
            ValueError: the request can never be answered: it says why.
            EngineError: as `submit`.
        """
        ids, room = text_ids(prompt, self.format, self.tokenizer), self._room(options)
        hole = None if options.raw else hole_of_text(prompt, self.format)
        if hole is None:
            return self._ask(ids[-room:], options, stop_words(options), (), "", LF)
        hole, ending = with_lf(visible(hole, self.context))
        ids = ids if len(ids) <= room else self._hole_ids(hole, options)
        return self._ask(ids, options, *rules_for(hole, options), "", ending)

    def warm(self, hole: Hole) -> Pending:
        """Reads a hole into the cache, so that its completion is begun sooner; no choices.

        Raises:
            ValueError: the hole can never be completed: it says why.
            EngineError: as `submit`.
        """
        return self.submit(hole, Options(max_new_tokens=0))

    def room_for_references(self, hole: Hole, options: Options) -> int:
        """Returns about how many tokens of other files the prompt of a hole has room for."""
        room = self._room(options)
        own = (len(hole.prefix) + len(hole.suffix)) // _CHARS_PER_TOKEN
        return max(0, min(int(room * REFERENCE_SHARE), room - own))

    def _hole_ids(self, hole: Hole, options: Options) -> list[int]:
        room = self._room(options)
        if self.format is not None:
            return fim_ids(hole, self.format, self.tokenizer, room)
        return prefix_only_ids(hole, self.tokenizer, room)

    def _room(self, options: Options) -> int:
        """Tokens of the longest prompt: at least half of the context.

        The same for all usual lengths of completions, so that a prompt which was read for one is
        cut at the same place for the next.
        """
        usual = min(_USUAL_ANSWER, self.context * 5 // 16)
        answer = min(max(options.max_new_tokens + MOST_TOKENS, usual), self.context // 2)
        return self.context - answer - len(self.engine.layout.frame([], self.tokenizer))

    def _ask(
        self,
        ids: Sequence[int],
        options: Options,
        rules: Sequence[Rule],
        trims: Sequence[Trim],
        half: str,
        ending: str,
        draft: str = "",
        remember: Callable[[str], None] | None = None,
    ) -> Pending:
        """Hands a request to the engine.

        Args:
            half: text with which the answer must begin, because the prompt ends before it.
            draft: what the answer may be.
            remember: is given what the model wrote.
        """
        watches = [
            AnswerWatch(Shaper(rules, trims, len(half), ending), options.time_limit_s)
            for _ in range(options.num_choices)
        ]
        layout, tokenizer = self.engine.layout, self.tokenizer
        prompt = ids_prompt(layout.frame(list(ids), tokenizer), tokenizer, layout)
        only_reads = options.max_new_tokens == 0
        most = max(options.max_new_tokens, 1) + (len(tokenizer.encode(half)) if half else 0)
        request = EngineRequest(
            prompt=replace(prompt, text="code"),  # not empty: the answer goes on from it
            sampling=SamplingConfig(
                max_new_tokens=most,
                temperature=options.temperature,
                top_p=options.top_p,
                top_k=options.top_k,
                seed=options.seed or 0,
                stop_token_ids=self._stop_ids,
            ),
            choices=1 if only_reads else options.num_choices,
            grammar=Begins(half.encode("utf-8")) if half and not only_reads else None,
            draft=tuple(tokenizer.encode(draft)[:most]) if draft else (),
            watch=watches.__getitem__,
            logprobs=options.logprobs,
            client=options.client,
            newest_wins=options.newest_wins,
        )
        return Pending(self.engine.submit(request), watches, tokenizer, only_reads, remember)
