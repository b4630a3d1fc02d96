"""The models that a server offers, by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from glm_core.chat.formats import ChatFormat
from glm_core.infer.blanks import Prompt
from glm_core.infer.engine import Engine
from glm_core.infer.layout import Layout
from glm_core.serve.errors import ApiError
from glm_core.serve.openai.convert import ImageReader
from glm_core.tokenizer.protocol import Tokenizer

_CHARS_PER_TOKEN = 256
"""More than the longest tokens have (128 spaces): what is longer is refused unread."""
Infill = Callable[[str, str], Prompt]
"""Makes a prompt of the texts before and behind the place where the answer goes."""
Continuation = Callable[[str], Prompt]
"""Makes a prompt of a text to be continued."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model with everything that requests are made of."""

    name: str
    engine: Engine
    chat_format: ChatFormat
    adapter: str = ""
    """Name under which the engine has a LoRA or a tuned prefix; empty for the model alone."""
    read_image: ImageReader | None = None
    """For models with eyes."""
    infill: Infill | None = None
    """For models that were taught to write between two texts in a way of their own."""
    continuation: Continuation | None = None
    """For models whose clients write special tokens into the text, such as those of templates."""
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    @property
    def layout(self) -> Layout:
        return self.engine.layout

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may take together."""
        return self.engine.max_request_tokens

    def check_length(self, num_chars: int, where: str) -> None:
        """Refuses a text that is far too long before it is read into tokens, which takes its time.

        Args:
            num_chars: of the text.
            where: the field that it came from.

        Raises:
            ApiError: no tokenizer could make so few tokens of it that they fit.
        """
        most = self.context * _CHARS_PER_TOKEN
        if num_chars > most:
            raise ApiError(
                400,
                f"{where} has {num_chars:,} characters but the context holds {self.context} "
                f"tokens, never more than {most:,} characters: shorten it",
                "context_length_exceeded",
                param=where,
            )

    @cached_property
    def abilities(self) -> dict[str, bool]:
        """What can be asked of it besides text."""
        return {
            "tools": self._knows_tools(),
            "images": self.read_image is not None,
            "fill": self.layout.has_blanks,
            "suffix": self.layout.has_blanks or self.infill is not None,
        }

    def _knows_tools(self) -> bool:
        try:
            self.chat_format.call_syntax({"name": "f"})
        except ValueError:
            return False
        return True


class Models:
    """All models of a server.

    Raises:
        ValueError: there is none, or two have the same name.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = {model.name: model for model in models}
        if not models:
            raise ValueError("there is no model to serve: name one, as in --model nano-text")
        if len(self._models) < len(models):
            raise ValueError(
                "two models have the same name: give them others, as in --model a=path"
            )

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get(self, name: str) -> ServedModel:
        """Returns the model of a request.

        Raises:
            ApiError: there is none of this name.
        """
        model = self._models.get(name)
        if model is None:
            known = ", ".join(self._models)
            raise ApiError(
                404,
                f"there is no model {name!r}: this server has {known}",
                "model_not_found",
                param="model",
            )
        return model
