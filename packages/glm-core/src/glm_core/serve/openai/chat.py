"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from glm_core.chat.session import default_sampling
from glm_core.infer.blanks import ids_prompt
from glm_core.infer.engine import EngineRequest, Piece, Ticket, Timings, Usage
from glm_core.infer.logprobs import TokenLogprob
from glm_core.serve.access_log import notes_of
from glm_core.serve.models import ServedModel
from glm_core.serve.openai.chunks import Envelope, is_cut, usage_data
from glm_core.serve.openai.convert import chat_messages
from glm_core.serve.openai.deltas import AnswerTranslator, Delta, End
from glm_core.serve.openai.fields import BadField
from glm_core.serve.openai.replies import CHAT_REPLIES
from glm_core.serve.openai.sampling import Defaults, check_stream, engine_request
from glm_core.serve.openai.schema import ChatRequest
from glm_core.serve.openai.token_names import chat_logprobs
from glm_core.serve.openai.tool_choice import Demand, demand_of
from glm_core.serve.service import Service, note_outcome, pieces_of, prepared, service_of
from glm_core.serve.sse import DONE, EventStream, while_connected

router = APIRouter(tags=["OpenAI"])
_OBSERVATION = "<|observation|>"


@router.post("/v1/chat/completions", responses=CHAT_REPLIES, summary="Answer a conversation")
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    chat = await begin_chat(body, request)
    if body.stream:
        return await EventStream.begun(request, chat.stream())
    return JSONResponse(await while_connected(request, chat.whole()))


async def begin_chat(body: ChatRequest, request: Request) -> Chat:
    """Hands a conversation to the engine; for other protocols too.

    Raises:
        ApiError, ValueError: the request is wrong.
        EngineBusy, EngineDraining: the engine takes no more.
    """
    service = service_of(request)
    served = service.models.get(body.model)
    _check(body)
    demand, asked = await prepared(lambda: _asked(request, body, served))
    if service.config.log_prompts:
        notes_of(request)["messages"] = body.messages
    (ticket,) = service.submit(request, served, [asked])
    return Chat(service, request, body, served, demand, ticket, asked)


class _Choice:
    """One answer while it comes."""

    def __init__(self, chat: Chat, index: int) -> None:
        demand, self._chat, self.index = chat.demand, chat, index
        self._translator = AnswerTranslator(
            chat.served.chat_format.reader(demand.tools),
            f"{chat.envelope.id}/{index}",
            is_legacy=demand.is_legacy,
            parallel=demand.parallel,
        )
        self._opening = demand.opening_text
        self._tokens: list[TokenLogprob] = []
        self.logprobs: list[dict[str, Any]] = []
        """Of the whole answer."""
        self.end: End | None = None
        self.is_early = False
        """Whether it was ended here, having all the calls that it may have."""

    def push(self, piece: Piece) -> list[dict[str, Any]]:
        """Takes what came; returns the choices of the chunks to send now."""
        if self.end is not None:
            return []
        self._tokens += piece.tokens
        text, self._opening = self._opening + piece.text, ""
        deltas = self._translator.push(text, ends_message=piece.mark is not None)
        if piece.end is not None:
            wants = piece.end.stop_id is not None and piece.end.stop_id == self._chat.observation
            rest, self.end = self._translator.finish(wants, is_cut(piece.end.finish_reason))
            deltas += rest
        elif self._translator.has_enough:
            self.is_early = True
            rest, self.end = self._translator.finish()
            deltas += rest
        return self._choices(deltas)

    def whole(self) -> dict[str, Any]:
        """Returns the choice of a whole answer."""
        assert self.end is not None
        message = {"refusal": None} | self.end.message
        return self._choice({"message": message}, self.logprobs, self.end.finish_reason)

    def _choices(self, deltas: list[Delta]) -> list[dict[str, Any]]:
        choices = []
        for delta in deltas:
            choices.append(self._choice({"delta": delta}, self._take_logprobs()))
        if self.end is not None:
            rest = self._take_logprobs()
            choices.append(self._choice({"delta": {}}, rest, self.end.finish_reason))
        return choices

    def _choice(
        self, said: dict[str, Any], logprobs: list[dict[str, Any]], reason: str | None = None
    ) -> dict[str, Any]:
        told = {"content": logprobs, "refusal": None} if self._chat.wants_logprobs else None
        return {"index": self.index} | said | {"logprobs": told, "finish_reason": reason}

    def _take_logprobs(self) -> list[dict[str, Any]]:
        taken, self._tokens = self._tokens, []
        if not self._chat.wants_logprobs:
            return []
        told = chat_logprobs(self._chat.served.tokenizer, taken)
        self.logprobs += told
        return told


@dataclass
class Chat:
    """One request while it is answered."""

    service: Service
    request: Request
    body: ChatRequest
    served: ServedModel
    demand: Demand
    ticket: Ticket
    asked: EngineRequest

    def __post_init__(self) -> None:
        options, tokenizer = self.body.stream_options, self.served.tokenizer
        self.envelope = Envelope(
            "chatcmpl",
            "chat.completion",
            "chat.completion.chunk",
            self.served.name,
            has_usage=options is not None and bool(options.include_usage),
        )
        self.wants_logprobs = bool(self.body.logprobs)
        self.observation = tokenizer.token_id(_OBSERVATION) if tokenizer.has(_OBSERVATION) else -1
        self.choices = [_Choice(self, index) for index in range(self.asked.choices)]
        self._num_tokens = 0
        self.timings: Timings | None = None
        """What it took; known after `usage`, unless it was ended here."""

    async def parts(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yields the choices of a stream's chunks as they come."""
        async with aclosing(self._pieces()) as pieces:
            async for index, piece in pieces:
                for choice in self.choices[index].push(piece):
                    yield choice

    async def stream(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self.parts()) as parts:
            async for choice in parts:
                yield self.envelope.chunk(choice)
        usage = self.envelope.last(usage_data([await self.usage()]))
        self._log_answers()
        yield usage + DONE

    async def whole(self) -> dict[str, Any]:
        async with aclosing(self._pieces()) as pieces:
            async for index, piece in pieces:
                self.choices[index].push(piece)
        usage = usage_data([await self.usage()])
        self._log_answers()
        return self.envelope.whole([choice.whole() for choice in self.choices], usage)

    def _log_answers(self) -> None:
        if self.service.config.log_prompts:
            messages = [choice.end.message for choice in self.choices if choice.end is not None]
            notes_of(self.request)["answers"] = messages

    async def _pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """Yields pieces while any are wanted; what is left then is cancelled."""
        async with aclosing(pieces_of([self.ticket])) as pieces:
            async for _, piece in pieces:
                self._num_tokens += len(piece.tokens)
                yield piece.choice, piece
                if self._is_early:
                    return

    @property
    def _is_early(self) -> bool:
        """Whether nothing is wanted any more, though the model would go on."""
        all_ended = all(choice.end is not None for choice in self.choices)
        return all_ended and any(choice.is_early for choice in self.choices)

    async def usage(self) -> Usage:
        """Waits for what the answer took."""
        if self._is_early:
            return Usage(len(self.asked.prompt.context_ids), 0, self._num_tokens)
        outcome = await self.ticket.aoutcome()
        self.timings = outcome.timings
        note_outcome(self.request, outcome.usage, outcome.timings)
        return outcome.usage


def _check(body: ChatRequest) -> None:
    check_stream(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise BadField("top_logprobs", "needs logprobs: set it to true")
    if None not in (body.max_tokens, body.max_completion_tokens) and (
        body.max_tokens != body.max_completion_tokens
    ):
        raise BadField("max_tokens", "is the old name of max_completion_tokens: give one of them")


def _asked(
    request: Request, body: ChatRequest, served: ServedModel
) -> tuple[Demand, EngineRequest]:
    """Makes the engine's request of the conversation."""
    format, tokenizer = served.chat_format, served.tokenizer
    fields = body.model_dump(
        include={
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "functions",
            "function_call",
            "response_format",
        }
    )
    demand = demand_of(fields, format)
    messages = chat_messages(body.messages, format, served.read_image)
    served.check_length(sum(len(message.content) for message in messages), "messages")
    try:
        ids = format.encode(messages, tokenizer, demand.tools)
    except ValueError as error:
        raise BadField("messages", str(error)) from error
    prompt = ids_prompt([*ids, *demand.opening_ids(tokenizer)], tokenizer, served.layout)
    usual = default_sampling(format, served.context)
    longest = body.max_completion_tokens or body.max_tokens or usual.max_new_tokens
    return demand, engine_request(
        request,
        body,
        served,
        prompt,
        max_tokens=longest,
        defaults=Defaults(temperature=usual.temperature, top_p=usual.top_p, stop=format.stop),
        where="messages",
        choices=body.n or 1,
        grammar=demand.grammar,
        marks=format.marks(tokenizer),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
