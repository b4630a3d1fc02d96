"""The friendly front of inference: text in, text out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from glm_core.infer.blanks import (
    Filled,
    FilledBlank,
    Prompt,
    blank_prompt,
    continuation_prompt,
    ids_prompt,
    join_blanks,
)
from glm_core.infer.generate import Decoder, Delta, Request
from glm_core.infer.grammar import Grammar, compile_grammar
from glm_core.infer.ids_stream import IdsStream
from glm_core.infer.layout import Layout, layout_for
from glm_core.infer.prompt_cache import PromptCache
from glm_core.infer.sampling import SamplingConfig
from glm_core.model.transformer import Transformer
from glm_core.tokenizer.protocol import Tokenizer


@dataclass(frozen=True)
class Completion:
    """What the model wrote after a prompt."""

    prompt: str
    text: str
    """The new text alone; `prompt + text` reads on."""
    tokens: list[int]
    logprob: float
    """Sum of the tokens' log-probabilities and of the end's, in nats, before any sampling rule."""
    finish_reason: str
    """stop_token, stop_string, max_new_tokens or context (the model's context is full)."""


class TextGenerator:
    """Continues texts and fills blanks.

        generator = TextGenerator(*load_model("nano-text"))
        generator.fill("The [MASK] statement wraps a block.").text

    Args:
        model: the transformer; its weights decide device and dtype.
        tokenizer: the one it was trained with.
        layout: where the model expects prompt and answer; by default what its config says.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, layout: Layout | None = None
    ) -> None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} ids but the model's vocab_size is "
                f"{model.config.vocab_size}: use the tokenizer that the model was trained with"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.layout = layout_for(model.config) if layout is None else layout

    def generate(
        self,
        texts: str | Sequence[str],
        config: SamplingConfig | Sequence[SamplingConfig] | None = None,
        grammar: Grammar | None = None,
    ) -> list[Completion]:
        """Continues texts. They are plain text: a literal [MASK] in them is not a blank.

        Args:
            texts: one or more; they are decoded together, and each as if it were alone.
            config: for all texts, or one for each.
            grammar: what every answer must be, for example `JsonSchema(schema)`.

        Raises:
            ValueError: a text is empty or does not fit into the model's context, or the grammar
                is malformed or unsupported.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        prompts = [continuation_prompt(text, self.tokenizer, self.layout) for text in texts]
        return [_completion(request) for request in self._answer(prompts, config, grammar)]

    def fill(
        self, text: str, config: SamplingConfig | None = None, grammar: Grammar | None = None
    ) -> Filled:
        """Fills the literal [MASK], [sMASK] and [gMASK] of a text, left to right.

        A text without a marker is continued.

        Raises:
            ValueError: the text is empty or too long, or a blank cannot be filled.
        """
        return self.fill_batch([text], config, grammar)[0]

    def fill_batch(
        self,
        texts: Sequence[str],
        config: SamplingConfig | Sequence[SamplingConfig] | None = None,
        grammar: Grammar | None = None,
    ) -> list[Filled]:
        """Fills several texts together, each as `fill` would."""
        return self.fill_prompts(
            [blank_prompt(text, self.tokenizer, self.layout) for text in texts], config, grammar
        )

    def fill_prompts(
        self,
        prompts: Sequence[Prompt],
        config: SamplingConfig | Sequence[SamplingConfig] | None = None,
        grammar: Grammar | None = None,
    ) -> list[Filled]:
        """Fills prompts that were made of tokens, for texts that themselves speak of [MASK]."""
        return [_filled(request) for request in self._answer(list(prompts), config, grammar)]

    def stream(
        self, text: str, config: SamplingConfig | None = None, grammar: Grammar | None = None
    ) -> Iterator[str]:
        """Continues a text, yielding whole characters as they become certain.

        Raises:
            ValueError: as `generate`; also when beam search is asked for, which knows its text
                only at the end. Raised here, before the first piece.
        """
        config = config or SamplingConfig()
        _check_one_beam(config)
        prompt = continuation_prompt(text, self.tokenizer, self.layout)
        return self._stream(prompt, self._decoder([prompt], [config], grammar))

    def stream_ids(
        self,
        context_ids: Sequence[int],
        config: SamplingConfig | None = None,
        marks: Collection[int] = (),
        cache: PromptCache | None = None,
    ) -> IdsStream:
        """Answers a context that is given as ids, for example by a chat format.

        Args:
            context_ids: everything the model reads, special tokens included; only the tokens
                that open an answer (<|startofpiece|> where the model fills blanks) are added.
            config: how to decode.
            marks: special ids that the answer may hold.
            cache: what was read for earlier answers, so that a context that begins as they did
                need not be read again; models with blanks, which look at the whole context at
                once, make no use of it.

        Raises:
            ValueError: as `stream`; also when an id is outside the vocabulary, or a model with
                blanks finds none. Raised here, before the first piece.
        """
        config = config or SamplingConfig()
        _check_one_beam(config)
        prompt = ids_prompt(context_ids, self.tokenizer, self.layout)
        decoder = Decoder(
            self.model,
            self.tokenizer,
            self.layout,
            [prompt],
            [config],
            marks,
            cache=None if self.layout.has_blanks else cache,
        )
        return IdsStream(decoder, self._evaluating())

    def _stream(self, prompt: Prompt, decoder: Decoder) -> Iterator[str]:
        is_first = True
        with self._evaluating():
            for delta in decoder.run():
                text = without_second_space(prompt, delta.text) if is_first else delta.text
                is_first = is_first and not delta.text
                if text:
                    yield text

    def _answer(
        self,
        prompts: list[Prompt],
        config: SamplingConfig | Sequence[SamplingConfig] | None,
        grammar: Grammar | None,
    ) -> list[Request]:
        configs = _one_config_each(config, len(prompts))
        if not prompts:
            return []
        groups = _groups(configs)
        requests: dict[int, Request] = {}
        with self._evaluating():
            for rows in groups:
                decoder = self._decoder(
                    [prompts[r] for r in rows], [configs[r] for r in rows], grammar
                )
                _drain(decoder.run())
                requests.update(zip(rows, decoder.requests, strict=True))
        return [requests[index] for index in range(len(prompts))]

    def _decoder(
        self, prompts: list[Prompt], configs: list[SamplingConfig], grammar: Grammar | None
    ) -> Decoder:
        compiled = None if grammar is None else compile_grammar(grammar, self.tokenizer)
        return Decoder(self.model, self.tokenizer, self.layout, prompts, configs, grammar=compiled)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(was_training)


def _check_one_beam(config: SamplingConfig) -> None:
    if config.num_beams > 1:
        raise ValueError(
            f"sampling.num_beams is {config.num_beams}: it must be 1 when streaming, since "
            "beam search knows its text only at the end; use generate"
        )


def _one_config_each(
    config: SamplingConfig | Sequence[SamplingConfig] | None, count: int
) -> list[SamplingConfig]:
    if config is None or isinstance(config, SamplingConfig):
        return [config or SamplingConfig()] * count
    if len(config) != count:
        raise ValueError(
            f"{len(config)} sampling configs were given for {count} texts: give one for all, "
            "or one for each"
        )
    return list(config)


def _groups(configs: list[SamplingConfig]) -> list[list[int]]:
    """Rows decoded together: all without beams; beam search takes the batch for itself."""
    together = [row for row, config in enumerate(configs) if config.num_beams == 1]
    alone = [[row] for row, config in enumerate(configs) if config.num_beams > 1]
    return [together, *alone] if together else alone


def _drain(deltas: Iterator[Delta]) -> None:
    for _ in deltas:
        continue


def _completion(request: Request) -> Completion:
    answer = request.answers[0]
    assert answer.finish_reason is not None
    return Completion(
        request.prompt.text,
        without_second_space(request.prompt, answer.text),
        answer.tokens,
        answer.logprob,
        answer.finish_reason.value,
    )


def without_second_space(prompt: Prompt, text: str) -> str:
    """The model does not see a prompt's last space (see encode_prompt) and may write its own."""
    has_space = prompt.slots[0].marker != "" and prompt.text.endswith(" ")
    return text.removeprefix(" ") if has_space else text


def _filled(request: Request) -> Filled:
    text, starts = join_blanks(request.prompt, [answer.text for answer in request.answers])
    blanks = []
    for slot, answer, start in zip(request.prompt.slots, request.answers, starts, strict=True):
        assert answer.finish_reason is not None
        reason = answer.finish_reason.value
        blanks.append(
            FilledBlank(slot.marker, answer.text, answer.tokens, answer.logprob, reason, start)
        )
    return Filled(request.prompt.text, text, blanks)
