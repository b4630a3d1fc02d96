"""The prompts of a completion request: texts, tokens, blanks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glm_core.infer.blanks import (
    Prompt,
    blank_prompt,
    continuation_prompt,
    ids_prompt,
    infill_prompt,
)
from glm_core.infer.logprobs import TokenLogprob
from glm_core.serve.models import ServedModel
from glm_core.serve.openai.fields import BadField
from glm_core.serve.openai.schema import MAX_CHOICES, CompletionRequest
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import BLANK_TOKENS, GMASK


@dataclass(frozen=True)
class Asked:
    """One prompt of a request."""

    prompt: Prompt
    text: str
    """What `echo` shows."""
    num_framing: int
    """Tokens before the text's own."""

    def told(self, logprobs: Sequence[TokenLogprob]) -> list[TokenLogprob | int]:
        """Returns the prompt's tokens, the first bare if nothing comes before it.

        Args:
            logprobs: of every token but the first.
        """
        told: list[TokenLogprob | int] = [self.prompt.context_ids[0], *logprobs]
        return told[self.num_framing :]


def prompts_of(body: CompletionRequest, served: ServedModel) -> list[Asked]:
    """Returns the prompts of a request.

    Raises:
        BadField: one of them cannot be used.
    """
    given = listed(body.prompt)
    texts = [one for one in (*given, body.suffix) if isinstance(one, str)]
    served.check_length(max(map(len, texts), default=0), "prompt")
    if not given or len(given) > MAX_CHOICES:
        raise BadField("prompt", f"holds {len(given)} prompts: it must be 1 to {MAX_CHOICES}")
    if body.suffix and len(given) > 1:
        raise BadField("suffix", "goes with one prompt: send them one by one")
    try:
        return [_asked(one, body, served) for one in given]
    except BadField:
        raise
    except ValueError as error:
        raise BadField("prompt", str(error)) from error


def text_ids(text: str | Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """Returns a text's tokens, or those given.

    Raises:
        ValueError: none is given, or one that is outside the vocabulary.
    """
    if isinstance(text, str):
        return tokenizer.encode(text)
    if not text:
        raise ValueError("is empty: it must hold a token")
    outside = [token for token in text if token >= tokenizer.vocab_size]
    if outside:
        raise ValueError(
            f"holds the token {outside[0]}: ids lie between 0 and {tokenizer.vocab_size - 1}"
        )
    return list(text)


def listed(
    prompt: str | list[str] | list[int] | list[list[int]],
) -> list[str | list[int]]:
    """Returns one or more prompts, each text or tokens, as a list."""
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [[token for token in prompt if isinstance(token, int)]]
    return [one for one in prompt if not isinstance(one, int)]


def _asked(given: str | list[int], body: CompletionRequest, served: ServedModel) -> Asked:
    prompt = _prompt(given, body, served)
    tokenizer = served.tokenizer
    text = given if isinstance(given, str) else tokenizer.decode(given)
    num_framing = 0
    if isinstance(given, str):
        num_ids = len(prompt.context_ids)
        while num_framing < num_ids and prompt.context_ids[num_framing] in tokenizer.special_ids:
            num_framing += 1
    return Asked(prompt, text, num_framing)


def _prompt(given: str | list[int], body: CompletionRequest, served: ServedModel) -> Prompt:
    tokenizer, layout = served.tokenizer, served.layout
    if body.suffix:
        return _infill(given, body.suffix, served)
    if isinstance(given, str):
        if body.fill:
            return blank_prompt(given, tokenizer, layout)
        if served.continuation is not None:
            return served.continuation(given)
        return continuation_prompt(given, tokenizer, layout)
    if body.fill:
        raise BadField("fill", "is about [MASK] in a text, but the prompt is tokens")
    ids = text_ids(given, tokenizer)
    has_blank = any(
        tokenizer.has(name) and tokenizer.token_id(name) in ids for name in BLANK_TOKENS
    )
    if layout.has_blanks and not has_blank:
        ids = layout.frame([*ids, tokenizer.token_id(GMASK)], tokenizer)
    return ids_prompt(ids, tokenizer, layout)


def _infill(given: str | list[int], suffix: str, served: ServedModel) -> Prompt:
    if not isinstance(given, str):
        raise BadField("suffix", "goes with a text, but the prompt is tokens")
    if served.infill is not None:
        return served.infill(given, suffix)
    if not served.layout.has_blanks:
        raise BadField(
            "suffix",
            "this model is causal and cannot look at what follows: leave it away, or use a model "
            "with blanks such as nano-text",
        )
    return infill_prompt(given, suffix, served.tokenizer, served.layout)
