"""What the requests of several protocols have in common."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from codegeex.complete import Options
from codegeex.languages import find_language, language_of_path
from codegeex.serve.code import CodeModel

Body = TypeVar("Body", bound=BaseModel)
DEFAULT_TOKENS = 64
Count = Annotated[int, Field(ge=-(2**31), lt=2**31)]
"""Of tokens; below 0 means as many as there is room for."""
Number = Annotated[float, Field(allow_inf_nan=False)]
Stops = str | Annotated[list[str], Field(max_length=128, fail_fast=True)]


class Lenient(BaseModel):
    """A request by a protocol whose clients send fields that have no meaning here, and nulls."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """None is the same as leaving a field away."""
        if not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if value is not None}


class Sampled(Lenient):
    """Fields that many protocols call the same."""

    temperature: Number | None = Field(None, description="0, the default, is greedy")
    top_p: Number | None = None
    top_k: Count | None = None
    seed: int | None = Field(None, description="Below 0: another each time")
    stop: Stops | None = Field(None, description="Texts that end the answer")


def validated(model: type[Body], body: Mapping[str, Any]) -> Body:
    """Returns a body that could be one of several protocols', now that it is known which.

    Raises:
        RequestValidationError: it is wrong, as FastAPI tells of one.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        errors = [dict(one) | {"loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(errors) from error


def options_of(
    sampled: Sampled,
    max_tokens: int | None,
    model: CodeModel,
    *,
    default_tokens: int = DEFAULT_TOKENS,
    client: str = "",
    **others: Any,
) -> Options:
    """Returns what the completer is asked for; a longer answer than there is room for is not.

    Args:
        sampled: the request.
        max_tokens: that the answer may have; below 0 as many as there is room for, 0 only reads
            the prompt, so that the next request finds it read.
        default_tokens: where the request says nothing.
        client: who asks; an older request of the same client is then cancelled.
        others: more of the options.
    """
    room = model.completer.context // 2
    wanted = default_tokens if max_tokens is None else max_tokens
    client = client if wanted else ""  # reading ahead must not cancel the answer that is awaited
    top_p = 1.0 if sampled.top_p is None else sampled.top_p
    temperature = max(sampled.temperature or 0.0, 0.0)
    return Options(
        max_new_tokens=room if wanted < 0 else min(wanted, room),
        temperature=temperature if top_p > 0 else 0.0,  # no probability mass: the best alone
        top_p=min(top_p, 1.0) if top_p > 0 else 1.0,
        top_k=max(sampled.top_k or 0, 0),
        seed=seed_of(sampled.seed),
        stop=stops_of(sampled.stop),
        client=client,
        newest_wins=bool(client),
        **others,
    )


def seed_of(seed: int | None) -> int:
    """Returns a seed; another each time where none is given, or one below 0."""
    return secrets.randbits(31) if seed is None or seed < 0 else seed % 2**63


def stops_of(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns the texts that end an answer; editors send empty ones too."""
    given = [stop] if isinstance(stop, str) else (stop or [])
    return tuple(dict.fromkeys(text for text in given if text))


def language_key(name: str | None, path: str | None = None) -> str:
    """Returns the language that a request names, or that its file has; empty if neither tells."""
    try:
        return find_language(name).key if name else _of_path(path)
    except ValueError:  # an editor's name for a language that is none of ours
        return _of_path(path)


def _of_path(path: str | None) -> str:
    found = language_of_path(path) if path else None
    return found.key if found else ""
