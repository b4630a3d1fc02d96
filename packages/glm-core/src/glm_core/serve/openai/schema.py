"""What requests may hold: fields, types and bounds of OpenAI's API, and a few of ours.

Fields that are not here are refused, as OpenAI does: a misspelt one would else be ignored. `None`
is the same as leaving a field away.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from glm_core.infer.sampling import MAX_BIAS, MAX_PENALTY

MAX_CHOICES = 128
MAX_STOPS = 32
_NAME = Annotated[str, Field(min_length=1, max_length=256)]
_TOKEN = Annotated[int, Field(ge=0, lt=2**31)]
_BIAS = Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]
_STOP = Annotated[str, Field(min_length=1, max_length=1024)]
_TEXTS = Annotated[list[str], Field(fail_fast=True)]
_TOKENS = Annotated[list[_TOKEN], Field(fail_fast=True)]
_OBJECTS = Annotated[list[dict[str, Any]], Field(fail_fast=True)]
"""Lists whose first fault is enough: a body of a million faults would take seconds to describe."""
_Texts = str | _TEXTS | _TOKENS | Annotated[list[_TOKENS], Field(fail_fast=True)]
_PENALTY = Field(None, ge=-MAX_PENALTY, le=MAX_PENALTY)


class Asked(BaseModel):
    """What all requests have in common."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: _NAME
    user: str | None = Field(None, description="Who asks; see newest_wins")


class StreamOptions(BaseModel):
    """What a stream tells besides the answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = Field(None, description="A last chunk with the tokens used")
    include_obfuscation: bool | None = Field(None, description="Taken, and without effect")


class Generation(Asked):
    """What requests for text have in common."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description="Answers wanted")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy")
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = _PENALTY
    frequency_penalty: float | None = _PENALTY
    logit_bias: dict[str, _BIAS] | None = Field(None, max_length=4096, description="By token id")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: _STOP | Annotated[list[_STOP], Field(max_length=MAX_STOPS)] | None = None

    top_k: int | None = Field(None, ge=-1, lt=2**31, description="Ours; 0 or -1 is all")
    min_p: float | None = Field(None, ge=0, le=1, description="Ours")
    repetition_penalty: float | None = Field(None, ge=0.001, le=1000, description="Ours; 1 is none")
    min_tokens: int | None = Field(None, ge=0, lt=2**31, description="Ours: least before an end")
    stop_token_ids: list[_TOKEN] | None = Field(None, max_length=MAX_STOPS, description="Ours")
    priority: int | None = Field(None, ge=0, le=100, description="Ours; lower is served first")
    newest_wins: bool | None = Field(
        None, description="Ours: cancels what the same user has asked for before"
    )

    store: Literal[False] | None = Field(None, description="Nothing is stored")
    metadata: dict[str, str] | None = Field(
        None, max_length=64, description="Taken, and without effect"
    )
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = Field(None, description="Taken, and without effect")
    prompt_cache_key: str | None = Field(None, description="Without effect: prefixes are reused")


class ChatRequest(Generation):
    """`POST /v1/chat/completions`."""

    messages: _OBJECTS = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_tokens: int | None = Field(None, ge=1, lt=2**31, description="As max_completion_tokens")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: _OBJECTS | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: _OBJECTS | None = Field(None, max_length=128)
    function_call: Literal["none", "auto"] | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None


class CompletionRequest(Generation):
    """`POST /v1/completions`."""

    prompt: _Texts
    suffix: str | None = Field(None, description="Text behind the answer")
    max_tokens: int | None = Field(None, ge=0, lt=2**31, description="16; 0 only with echo")
    echo: bool | None = Field(None, description="The prompt stands before the answer")
    logprobs: int | None = Field(None, ge=0, le=5)
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    fill: bool | None = Field(None, description="Ours: [MASK] in the prompt is a blank to fill")
    response_format: dict[str, Any] | None = Field(None, description="Ours, as in chats")


class EmbeddingRequest(Asked):
    """`POST /v1/embeddings`."""

    input: _Texts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="Only the model's own number")
