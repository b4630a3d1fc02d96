"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from glm_core.infer.blanks import join_blanks
from glm_core.infer.choices import best_first
from glm_core.infer.engine import BlankAnswer, EngineRequest, Outcome, Piece, Ticket
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.text_generator import without_second_space
from glm_core.serve.access_log import notes_of
from glm_core.serve.models import ServedModel
from glm_core.serve.openai.chunks import Envelope, finish_reason, usage_data
from glm_core.serve.openai.fields import BadField
from glm_core.serve.openai.prompts import Asked, prompts_of
from glm_core.serve.openai.replies import COMPLETION_REPLIES
from glm_core.serve.openai.sampling import Defaults, check_stream, engine_request
from glm_core.serve.openai.schema import CompletionRequest
from glm_core.serve.openai.token_names import CompletionLogprobs
from glm_core.serve.openai.tool_choice import response_grammar
from glm_core.serve.service import note_outcome, outcomes_of, pieces_of, prepared, service_of
from glm_core.serve.sse import DONE, EventStream, while_connected

router = APIRouter(tags=["OpenAI"])
DEFAULT_MAX_TOKENS = 16
_DEFAULTS = Defaults(temperature=1.0, top_p=1.0)


@router.post("/v1/completions", responses=COMPLETION_REPLIES, summary="Go on with a text")
async def completions(body: CompletionRequest, request: Request) -> Response:
    service = service_of(request)
    served = service.models.get(body.model)
    check(body, served)
    prompts = await prepared(lambda: prompts_of(body, served))
    requests = await prepared(
        lambda: [_engine_request(request, body, served, one) for one in prompts]
    )
    if service.config.log_prompts:
        notes_of(request)["prompt"] = body.prompt
    tickets = service.submit(request, served, requests)
    work = _Completion(request, body, served, prompts, tickets)
    if body.stream:
        return await EventStream.begun(request, work.stream())
    return JSONResponse(await while_connected(request, work.whole()))


def check(body: CompletionRequest, served: ServedModel) -> None:
    """Checks that the fields do not contradict each other.

    Raises:
        BadField: they do.
    """
    check_stream(body)
    n = body.n or 1
    best_of = n if body.best_of is None else body.best_of
    if best_of < n:
        raise BadField("best_of", f"is {best_of}: it must be at least n, which is {n}")
    if best_of > n and body.stream:
        raise BadField("best_of", f"is {best_of}: a stream cannot choose, it must be n, {n}")
    if body.max_tokens == 0 and not body.echo:
        raise BadField("max_tokens", "is 0: it must be at least 1, unless echo is true")
    if body.max_tokens == 0 and body.stream:
        raise BadField("stream", "has nothing to stream: max_tokens is 0")
    if body.suffix and body.echo:
        raise BadField("echo", "contradicts suffix: leave one of them away")
    if body.fill and (body.suffix or body.echo):
        raise BadField("fill", "contradicts suffix and echo: the answer is the whole text")
    if body.fill and body.logprobs is not None:
        raise BadField("logprobs", "are not given with fill: leave them away")
    if body.echo and body.logprobs is not None and body.stream:
        raise BadField("logprobs", "of an echo are known at the end only: ask without stream")
    if body.echo and body.logprobs is not None and served.layout.has_blanks:
        raise BadField(
            "logprobs",
            "cannot be given with echo: this model sees the whole prompt at once, so that its "
            "tokens have no probabilities given those before",
        )


@dataclass
class _Completion:
    """One request while it is answered; choice `p * n + i` is answer i to prompt p."""

    request: Request
    body: CompletionRequest
    served: ServedModel
    prompts: Sequence[Asked]
    tickets: Sequence[Ticket]

    def __post_init__(self) -> None:
        options = self.body.stream_options
        self.num_choices = self.body.n or 1
        self.envelope = Envelope(
            "cmpl",
            "text_completion",
            "text_completion",
            self.served.name,
            has_usage=options is not None and bool(options.include_usage),
        )

    async def whole(self) -> dict[str, Any]:
        outcomes = await outcomes_of(self.tickets)
        choices: list[dict[str, Any]] = []
        for prompt, outcome in zip(self.prompts, outcomes, strict=True):
            order = best_first([answer[0].mean_logprob for answer in outcome.choices])
            kept = order if len(order) > self.num_choices else range(len(order))
            for index in list(kept)[: self.num_choices]:
                choice = self._choice(prompt, outcome, index)
                choices.append({"index": len(choices)} | choice)
        self._log_answers([choice["text"] for choice in choices])
        return self.envelope.whole(choices, self._usage(outcomes))

    async def stream(self) -> AsyncGenerator[bytes, None]:
        streams = [
            _Stream(self, prompt, index * self.num_choices + choice)
            for index, prompt in enumerate(self.prompts)
            for choice in range(self.num_choices)
        ]
        if self.body.echo:
            for stream in streams:
                yield self.envelope.chunk(stream.echo())
        async with aclosing(pieces_of(self.tickets)) as pieces:
            async for index, piece in pieces:
                stream = streams[index * self.num_choices + piece.choice]
                for choice in stream.push(piece):
                    yield self.envelope.chunk(choice)
        outcomes = await outcomes_of(self.tickets)
        self._log_answers([stream.text for stream in streams])
        yield self.envelope.last(self._usage(outcomes)) + DONE

    def _log_answers(self, texts: list[str]) -> None:
        if service_of(self.request).config.log_prompts:
            notes_of(self.request)["answers"] = texts

    def _choice(self, prompt: Asked, outcome: Outcome, index: int) -> dict[str, Any]:
        if self.body.fill:
            return _filled(prompt, outcome.choices[index])
        (answer,) = outcome.choices[index]
        scores_only = self.body.max_tokens == 0
        text = "" if scores_only else without_second_space(prompt.prompt, answer.text)
        tokens: Sequence[TokenLogprob | int] = () if scores_only else answer.logprobs
        if self.body.echo:
            text = prompt.text + text
            if self.body.logprobs is not None:
                tokens = [*prompt.told(outcome.prompt_logprobs or ()), *tokens]
        reason = "length" if scores_only else finish_reason(answer.finish_reason)
        logprobs = self.logprobs()
        told = None if logprobs is None else logprobs.push(tokens)
        return {"text": text, "logprobs": told, "finish_reason": reason}

    def logprobs(self) -> CompletionLogprobs | None:
        """Returns what tells of one choice's tokens; None if nobody asked."""
        count = self.body.logprobs
        return None if count is None else CompletionLogprobs(self.served.tokenizer, count)

    def _usage(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        for outcome in outcomes:
            note_outcome(self.request, outcome.usage, outcome.timings)
        usage = usage_data([outcome.usage for outcome in outcomes])
        if self.body.max_tokens == 0:  # the engine writes one token at least
            usage |= {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
        return usage


class _Stream:
    """One choice of a stream."""

    def __init__(self, work: _Completion, prompt: Asked, index: int) -> None:
        self._work, self._prompt, self._index = work, prompt, index
        self._logprobs = work.logprobs()
        self._tokens: list[TokenLogprob] = []
        self._is_first = True
        self.text = ""
        """What was sent so far."""

    def echo(self) -> dict[str, Any]:
        """Returns the chunk of the prompt itself."""
        return self._told(self._prompt.text, None)

    def push(self, piece: Piece) -> list[dict[str, Any]]:
        """Takes what came; returns the choices to send now."""
        self._tokens += piece.tokens
        text = piece.text
        if self._is_first and text:
            text, self._is_first = without_second_space(self._prompt.prompt, text), False
        has_blanks = bool(self._work.body.fill)
        is_last = piece.end is not None and piece.blank == len(self._prompt.prompt.slots) - 1
        reason = finish_reason(piece.end.finish_reason) if is_last and piece.end else None
        if not text and reason is None:
            return []
        told = self._told(text, reason)
        return [told | {"blank": piece.blank} if has_blanks else told]

    def _told(self, text: str, reason: str | None) -> dict[str, Any]:
        self.text += text
        taken, self._tokens = self._tokens, []
        logprobs = None if self._logprobs is None else self._logprobs.push(taken)
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _filled(prompt: Asked, answers: Sequence[BlankAnswer]) -> dict[str, Any]:
    """Returns the choice of a text with its blanks filled."""
    text, starts = join_blanks(prompt.prompt, [answer.text for answer in answers])
    blanks = [
        {
            "marker": answer.marker,
            "text": answer.text,
            "start": start,
            "finish_reason": finish_reason(answer.finish_reason),
        }
        for answer, start in zip(answers, starts, strict=True)
    ]
    reasons = [blank["finish_reason"] for blank in blanks]
    reason = "length" if "length" in reasons else "stop"
    return {"text": text, "logprobs": None, "finish_reason": reason, "blanks": blanks}


def _engine_request(
    request: Request, body: CompletionRequest, served: ServedModel, asked: Asked
) -> EngineRequest:
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    return engine_request(
        request,
        body,
        served,
        asked.prompt,
        max_tokens=max(max_tokens, 1),
        defaults=_DEFAULTS,
        where="prompt",
        choices=body.best_of or body.n or 1,
        grammar=response_grammar(body.response_format),
        logprobs=body.logprobs,
        prompt_logprobs=body.logprobs if body.echo else None,
    )
