"""What Ollama's requests hold, and what all its answers tell."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Request
from pydantic import Field

from codegeex.serve.code import CodeModel, code_of
from codegeex.serve.fields import Count, Lenient, Sampled
from glm_core.infer.engine import Timings, Usage
from glm_core.serve.errors import ApiError
from glm_core.serve.models import ServedModel
from glm_core.serve.openai.fields import BadField

DEFAULT_TOKENS = 128
_Images = Annotated[list[Any], Field(fail_fast=True)]


class OllamaOptions(Sampled):
    """How to answer; other options of Ollama are without effect."""

    num_predict: Count | None = Field(None, description="Below 0: as many as there is room for")
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class OllamaRequest(Lenient):
    """What requests for text have in common."""

    model: Annotated[str, Field(min_length=1)]
    stream: bool = Field(True, description="Lines of JSON while the answer comes")
    options: OllamaOptions = Field(default_factory=lambda: OllamaOptions.model_validate({}))
    format: str | dict[str, Any] | None = Field(None, description="json, or a schema (chats)")
    keep_alive: float | str | None = Field(None, description="Without effect: models stay")


def served_of(request: Request, name: str) -> ServedModel:
    """Returns the model of a request; Ollama's clients add a tag to names that have none.

    Raises:
        ApiError: there is none.
    """
    models = code_of(request).service.models
    known = {model.name: model for model in models}
    found = known.get(name) or known.get(name.removesuffix(":latest"))
    if found is None:
        told = f"model '{name}' not found: this server has {', '.join(known)}"
        raise ApiError(404, told, "model_not_found", param="model")
    return found


def code_model_of(request: Request, served: ServedModel) -> CodeModel | None:
    """Returns the model as one that completes code, if it is."""
    return code_of(request).models.get(served.name)


def check_images(images: list[Any] | None) -> None:
    """Refuses pictures.

    Raises:
        BadField: there are some.
    """
    if images:
        raise BadField("images", "this model has no eyes: leave them away")


def now() -> str:
    """Returns the time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def figures(usage: Usage, timings: Timings) -> dict[str, int]:
    """Returns what a request took, in nanoseconds and tokens; the last is ours."""
    eval_s = max(timings.total_s - timings.first_token_s, 0.0)
    return {
        "total_duration": _nanoseconds(timings.total_s),
        "load_duration": 0,
        "prompt_eval_count": usage.prompt,
        "prompt_eval_duration": _nanoseconds(timings.prompt_s),
        "eval_count": usage.completion,
        "eval_duration": _nanoseconds(eval_s),
        "prompt_cached_count": usage.cached,
    }


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
