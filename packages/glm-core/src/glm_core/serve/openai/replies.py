"""What answers look like, for the OpenAPI description. Nothing is checked against it at run time;
the tests are."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Replies = dict[int | str, dict[str, Any]]


class ErrorData(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    error: ErrorData


class TokenDetails(BaseModel):
    cached_tokens: int


class UsageData(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails


class ChatChoice(BaseModel):
    index: int
    message: dict[str, Any]
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call"]


class ChatReply(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageData


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]
    blanks: list[dict[str, Any]] | None = None


class CompletionReply(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageData


class EmbeddingData(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingReply(BaseModel):
    object: Literal["list"]
    data: list[EmbeddingData]
    model: str
    usage: dict[str, int]


class ModelReply(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int
    chat_format: str
    abilities: dict[str, bool]


class ModelsReply(BaseModel):
    object: Literal["list"]
    data: list[ModelReply]


_REASONS = {
    400: "The request is wrong; `error` says what and where",
    401: "The API key is missing or wrong",
    403: "The server was called by a name that is not its own",
    404: "There is no such model",
    408: "The body came too slowly",
    413: "The body is too large",
    422: "Never sent: what cannot be read is answered with 400",
    429: "Too many requests are waiting: ask again after `Retry-After`",
    500: "The model or the server failed",
    503: "The server is shutting down: ask again after `Retry-After`",
    504: "The request took longer than the server allows",
}
_ERRORS: Replies = {
    status: {"model": ErrorReply, "description": told} for status, told in _REASONS.items()
}


def _replies(model: type[BaseModel], streams: bool = False) -> Replies:
    ok: dict[str, Any] = {"model": model, "description": "The answer"}
    if streams:
        told = "With `stream`: server-sent events of JSON, then `[DONE]`"
        event = {"type": "object", "properties": {"data": {"type": "string"}}, "description": told}
        ok["content"] = {"text/event-stream": {"schema": event}}
    return {200: ok, **_ERRORS}


CHAT_REPLIES = _replies(ChatReply, streams=True)
COMPLETION_REPLIES = _replies(CompletionReply, streams=True)
EMBEDDING_REPLIES = _replies(EmbeddingReply)
MODEL_REPLIES = _replies(ModelReply)
MODELS_REPLIES = _replies(ModelsReply)
