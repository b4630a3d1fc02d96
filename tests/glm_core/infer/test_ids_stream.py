"""Answers to contexts that are given as ids."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.prompt_cache import PromptCache
from glm_core.infer.sampling import Sampler
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]


def _causal(build_model: Build, tokenizer: ByteBPETokenizer) -> TextGenerator:
    return TextGenerator(build_model(generation_layout=GenerationLayout.causal), tokenizer)


def _script(monkeypatch: pytest.MonkeyPatch, tokens: list[int]) -> None:
    answers = iter(tokens)
    monkeypatch.setattr(Sampler, "choose", lambda *_: TokenLogprob(next(answers), 0.0))


def test_ids_are_answered_as_the_text_they_stand_for(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    config = SamplingConfig(max_new_tokens=9, temperature=0.8, seed=4)
    causal = _causal(build_model, tokenizer)
    ids = tokenizer.encode("The with statement")
    stream = causal.stream_ids(ids, config)
    (expected,) = causal.generate("The with statement", config)
    assert "".join(piece.text for piece in stream) == expected.text
    assert (stream.tokens, stream.finish_reason) == (expected.tokens, expected.finish_reason)
    assert stream.num_context_tokens == len(ids)
    # a model with blanks: the context brings its frame and [gMASK], the opening is added
    blank = TextGenerator(build_model(seed=5), tokenizer)
    stream = blank.stream_ids([tokenizer.cls_id, *ids, tokenizer.gmask_id], config)
    (expected,) = blank.generate("The with statement", config)
    assert "".join(piece.text for piece in stream) == expected.text
    assert stream.num_context_tokens == len(ids) + 3


def test_nothing_is_known_before_the_first_piece(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    stream = _causal(build_model, tokenizer).stream_ids([1, 2])
    assert (stream.tokens, stream.finish_reason, stream.stop_id) == ([], None, None)
    stream.close()
    assert list(stream) == []


def test_stream_can_be_left_and_its_tokens_stay_known(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    generator = _causal(build_model, tokenizer)
    generator.model.train()
    try:
        stream = generator.stream_ids([1, 2], SamplingConfig(max_new_tokens=30))
        for index, _ in enumerate(stream):
            if index == 4:
                break
        stream.close()
        assert len(stream.tokens) == 5 and stream.finish_reason is None
        assert generator.model.training
    finally:
        generator.model.eval()


def test_mark_ends_what_is_held_back_and_stop_token_is_known(
    build_model: Build, tokenizer: ByteBPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, (stop, *_) = tokenizer.dblock_id, tokenizer.stop_ids
    _script(monkeypatch, [*tokenizer.encode("ab"), mark, *tokenizer.encode("c"), stop])
    config = SamplingConfig(max_new_tokens=30, stop=["abX"])
    stream = _causal(build_model, tokenizer).stream_ids([1], config, marks=[mark])
    pieces = [(piece.text, piece.mark) for piece in stream if piece.text or piece.mark]
    assert pieces == [("ab", mark), ("c", None)]  # "ab" may have become "abX"
    assert stream.stop_id == stop and stream.finish_reason == "stop_token"
    assert stream.tokens == [*tokenizer.encode("ab"), mark, *tokenizer.encode("c")]


def test_marks_alone_among_special_tokens_can_be_sampled(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    config = SamplingConfig(max_new_tokens=80, min_new_tokens=80, temperature=90.0)
    marks = [tokenizer.dblock_id, tokenizer.cls_id]
    stream = _causal(build_model, tokenizer).stream_ids([1], config, marks)
    found = [piece.mark for piece in stream if piece.mark is not None]
    assert found and found == [token for token in stream.tokens if token in tokenizer.special_ids]
    assert set(found) <= set(marks)


def test_contexts_that_cannot_be_answered_are_refused(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    causal = _causal(build_model, tokenizer)
    last = tokenizer.vocab_size - 1
    with pytest.raises(
        ValueError, match=f"context is empty: it must hold ids between 0 and {last}"
    ):
        causal.stream_ids([])
    with pytest.raises(ValueError, match="the context holds the id 5000: it must hold ids betw"):
        causal.stream_ids([1, 5000])
    with pytest.raises(ValueError, match="no blank to answer in: put the id of .gMASK. at its end"):
        TextGenerator(build_model(), tokenizer).stream_ids([1])
    with pytest.raises(ValueError, match="the model's context holds 96: shorten it by at least 4"):
        causal.stream_ids([1] * 100)
    with pytest.raises(ValueError, match="sampling.num_beams is 2: it must be 1 when streaming"):
        causal.stream_ids([1], SamplingConfig(num_beams=2))


def _count_columns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many columns the model reads at a time, from now on."""
    read: list[int] = []
    forward = Transformer.forward

    def counted(model: Transformer, ids: torch.Tensor, *more: object) -> torch.Tensor:
        read.append(ids.shape[1])
        return forward(model, ids, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Transformer, "forward", counted)
    return read


@pytest.mark.parametrize("kept", [0, 1, 5, 12, 20])
def test_cached_context_is_answered_as_one_that_is_read_anew(
    build_model: Build, tokenizer: ByteBPETokenizer, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    generator = _causal(build_model, tokenizer)
    config = SamplingConfig(max_new_tokens=8, min_new_tokens=8, temperature=0.9)
    cache = PromptCache()
    first = generator.stream_ids(list(range(1, 13)), config, cache=cache)
    list(first)
    said = [*range(1, 13), *first.tokens]
    context = [*said[:kept], *range(30, 45)]
    expected = generator.stream_ids(context, config)
    list(expected)
    read = _count_columns(monkeypatch)
    stream = generator.stream_ids(context, config, cache=cache)
    list(stream)
    assert stream.tokens == expected.tokens
    # of the first answer, the last token was never read
    assert read[0] == len(context) - min(kept, 19)


def test_cache_serves_again_when_an_answer_was_left(
    build_model: Build, tokenizer: ByteBPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = _causal(build_model, tokenizer)
    config = SamplingConfig(max_new_tokens=8, min_new_tokens=8)
    cache = PromptCache()
    context = list(range(1, 13))
    expected = generator.stream_ids(context, config)
    list(expected)
    stream = generator.stream_ids(context, config, cache=cache)
    next(iter(stream))
    stream.close()
    read = _count_columns(monkeypatch)
    again = generator.stream_ids(context, config, cache=cache)
    list(again)
    assert again.tokens == expected.tokens and read[0] == 1


def test_cache_serves_again_when_the_model_was_interrupted(
    build_model: Build, tokenizer: ByteBPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the compiled step, which nothing can interrupt between two layers, is left out
    monkeypatch.setattr("glm_core.infer.batch.column_decoder", lambda _: None)
    generator = _causal(build_model, tokenizer)
    config = SamplingConfig(max_new_tokens=8, min_new_tokens=8)
    cache = PromptCache()
    context = list(range(1, 13))
    expected = generator.stream_ids(context, config)
    list(expected)
    stream = generator.stream_ids(context, config, cache=cache)
    pieces = iter(stream)
    next(pieces), next(pieces)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(generator.model.layers[1]), "forward", interrupted)
        list(pieces)
    again = generator.stream_ids(context, config, cache=cache)
    list(again)
    assert again.tokens == expected.tokens


def test_cache_is_left_alone_by_models_with_blanks(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(), tokenizer)
    config = SamplingConfig(max_new_tokens=5, min_new_tokens=5)
    cache = PromptCache()
    for context in ([1, 2, 3], [1, 2, 4]):
        context.append(tokenizer.gmask_id)
        stream = generator.stream_ids(context, config, cache=cache)
        expected = generator.stream_ids(context, config)
        assert list(stream) == list(expected)
