"""From a request's fields to what the engine is asked for."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request

from glm_core.infer.blanks import Prompt, check_room
from glm_core.infer.engine import EngineRequest
from glm_core.infer.grammar import Grammar, compile_grammar
from glm_core.infer.sampling import SamplingConfig
from glm_core.serve.errors import ApiError
from glm_core.serve.models import ServedModel
from glm_core.serve.openai.fields import BadField
from glm_core.serve.openai.schema import Generation


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What an answer is decoded with where the request says nothing."""

    temperature: float
    top_p: float
    stop: tuple[str, ...] = ()
    """Added to the request's own."""


def sampling_of(body: Generation, max_new_tokens: int, defaults: Defaults) -> SamplingConfig:
    """Returns how the answers to a request are decoded; without a seed each time otherwise.

    Raises:
        ValueError: a field is out of bounds; the message begins with `sampling.NAME`.
    """
    top_p = defaults.top_p if body.top_p is None else body.top_p
    temperature = defaults.temperature if body.temperature is None else body.temperature
    stop = [body.stop] if isinstance(body.stop, str) else (body.stop or [])
    return SamplingConfig(
        max_new_tokens=max_new_tokens,
        min_new_tokens=body.min_tokens or 0,
        temperature=temperature if top_p > 0 else 0.0,  # no probability mass: the best alone
        top_k=max(body.top_k or 0, 0),
        top_p=top_p or 1.0,
        min_p=body.min_p or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=_biases(body.logit_bias or {}),
        seed=secrets.randbits(63) if body.seed is None else body.seed,
        stop=[*stop, *defaults.stop],
        stop_token_ids=body.stop_token_ids or [],
    )


def engine_request(
    request: Request,
    body: Generation,
    served: ServedModel,
    prompt: Prompt,
    *,
    max_tokens: int,
    defaults: Defaults,
    where: str,
    choices: int = 1,
    grammar: Grammar | None = None,
    marks: tuple[int, ...] = (),
    logprobs: int | None = None,
    prompt_logprobs: int | None = None,
) -> EngineRequest:
    """Returns what the engine is asked for; a longer answer than there is room for is not.

    Args:
        where: the field that the prompt came from.

    Raises:
        ApiError: the prompt is longer than the context.
        BadField: the grammar cannot be used.
        ValueError: another field is out of bounds.
    """
    if grammar is not None:
        try:
            compile_grammar(grammar, served.tokenizer)  # kept: the engine finds it compiled
        except ValueError as error:
            raise BadField("response_format", str(error)) from error
    largest = served.engine.config.max_running
    if choices > largest:
        raise BadField(
            "n" if (body.n or 1) > largest else "best_of",
            f"asks for {choices} answers: this server makes at most {largest} together",
        )
    most = min(max_tokens, room_for(prompt, served, where))
    sampling = sampling_of(body, most, defaults)
    timeout_s = request.app.state.service.config.request_timeout_s
    return EngineRequest(
        prompt=prompt,
        sampling=sampling,
        choices=choices,
        marks=marks,
        grammar=grammar,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        adapter=served.adapter,
        priority=body.priority or 0,
        client=_client(request, body),
        newest_wins=bool(body.newest_wins),
        timeout_s=timeout_s,
    )


def room_for(prompt: Prompt, served: ServedModel, where: str) -> int:
    """Returns how many tokens each blank's answer can have.

    Raises:
        ApiError: not one.
    """
    opening = len(served.layout.opening(served.tokenizer))
    try:
        check_room(prompt, opening, served.context)
    except ValueError as error:
        raise ApiError(400, str(error), "context_length_exceeded", param=where) from error
    return served.context - len(prompt.context_ids) - len(prompt.slots) * opening


def check_stream(body: Generation) -> None:
    """Checks what goes only with a stream, or only without.

    Raises:
        BadField: it contradicts.
    """
    if body.stream_options is not None and not body.stream:
        raise BadField("stream_options", "is about streams: set stream to true, or leave it away")
    if body.newest_wins and not body.user:
        raise BadField("newest_wins", "needs user: the name of who asks")


def _biases(given: Mapping[str, float]) -> dict[int, float]:
    wrong = [key for key in given if not (key.isascii() and key.isdecimal() and len(key) < 10)]
    if wrong:
        raise BadField("logit_bias", f"names {wrong[0][:40]!r}: its names must be ids of tokens")
    return {int(key): bias for key, bias in given.items()}


def _client(request: Request, body: Generation) -> str:
    """Who asks: the same `user` of another key is somebody else."""
    if not body.user:
        return ""
    key = request.headers.get("authorization", "")
    return hashlib.sha256(f"{key}\n{body.user}".encode("utf-8", "replace")).hexdigest()[:16]
