"""Prompts with blanks: what the model reads, what the user gets back, and every refusal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from glm_core.infer import BlankLayout, CausalLayout, SamplingConfig, TextGenerator
from glm_core.infer.blanks import blank_prompt, continuation_prompt, join_blanks
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]


def test_blank_prompt_finds_every_blank_and_its_column(tokenizer: ByteBPETokenizer) -> None:
    prompt = blank_prompt("a [MASK] b[sMASK]", tokenizer, BlankLayout())
    names = [tokenizer.token_name(token) for token in prompt.context_ids]
    assert names == ["[CLS]", "a", "[MASK]", " ", "b", "[sMASK]", "<|endoftext|>"]
    assert [(slot.marker, slot.index) for slot in prompt.slots] == [("[MASK]", 2), ("[sMASK]", 5)]


def test_prompt_without_marker_is_continued_as_if_gmask_were_written(
    tokenizer: ByteBPETokenizer,
) -> None:
    plain = blank_prompt("a b", tokenizer, BlankLayout())
    written = blank_prompt("a b[gMASK]", tokenizer, BlankLayout())
    assert plain.context_ids == written.context_ids
    assert plain.context_ids[-1] == tokenizer.gmask_id


def test_white_space_after_the_last_blank_is_no_part_of_the_text(
    tokenizer: ByteBPETokenizer,
) -> None:
    prompt = blank_prompt("a [gMASK] \n", tokenizer, BlankLayout())
    assert prompt.context_ids[-1] == tokenizer.gmask_id


def test_continuation_takes_markers_for_text(tokenizer: ByteBPETokenizer) -> None:
    prompt = continuation_prompt("a [MASK] b", tokenizer, BlankLayout())
    assert tokenizer.mask_id not in prompt.context_ids
    assert tokenizer.decode(prompt.context_ids) == "a [MASK] b"


@pytest.mark.parametrize(
    ("text", "answers", "expected", "starts"),
    [
        ("The [MASK] wraps", [" with"], "The with wraps", [3]),
        ("The [MASK] wraps", ["with"], "The with wraps", [4]),
        ("The[MASK] wraps", ["y"], "They wraps", [3]),
        ("[MASK] and [MASK]", ["One", " two"], "One and two", [0, 7]),
        ("[MASK][MASK]", ["a", "b"], "ab", [0, 1]),
        ("Say [gMASK]", [""], "Say ", [4]),
    ],
)
def test_join_blanks_writes_one_space_between_words(
    tokenizer: ByteBPETokenizer, text: str, answers: list[str], expected: str, starts: list[int]
) -> None:
    prompt = blank_prompt(text, tokenizer, BlankLayout())
    assert join_blanks(prompt, answers) == (expected, starts)


def test_fill_tells_text_tokens_and_place_of_each_blank(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(seed=4), tokenizer)
    filled = generator.fill("The [MASK] wraps [MASK].", SamplingConfig(max_new_tokens=6))
    assert filled.text.startswith("The") and " wraps" in filled.text
    for blank in filled.blanks:
        assert filled.text[blank.start : blank.start + len(blank.text)] == blank.text
        assert tokenizer.decode(blank.tokens).startswith(blank.text)
        assert blank.marker == "[MASK]" and blank.logprob < 0


@pytest.mark.parametrize("text", ["", "  \n"])
def test_fill_raises_when_the_prompt_is_empty(tokenizer: ByteBPETokenizer, text: str) -> None:
    with pytest.raises(ValueError, match=r"prompt is empty: .* or \[gMASK\] alone"):
        blank_prompt(text, tokenizer, BlankLayout())


def test_fill_writes_from_nothing_when_the_prompt_is_gmask(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    filled = TextGenerator(build_model(), tokenizer).fill("[gMASK]")
    assert filled.blanks[0].start == 0 and filled.text == filled.blanks[0].text


@pytest.mark.parametrize("marker", ["[mask]", "[Mask]", "[xMASK]"])
def test_fill_raises_when_a_marker_is_misspelt(tokenizer: ByteBPETokenizer, marker: str) -> None:
    with pytest.raises(ValueError, match=r"unknown marker \[.*\]: the blanks are \[MASK\], "):
        blank_prompt(f"The {marker} wraps", tokenizer, BlankLayout())


def test_fill_raises_when_the_model_is_causal(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model = build_model(generation_layout=GenerationLayout.causal)
    with pytest.raises(ValueError, match=r"blank \[MASK\] but this model is causal .* nano-text"):
        TextGenerator(model, tokenizer).fill("The [MASK] wraps")


def test_fill_raises_when_the_tokenizer_lacks_the_marker(
    tokenizer: ByteBPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tokenizer.token_id

    def token_id(name: str) -> int:
        if name == "[sMASK]":
            raise ValueError("unknown special token '[sMASK]'")
        return known(name)

    monkeypatch.setattr(tokenizer, "token_id", token_id)
    with pytest.raises(ValueError, match=r"blank \[sMASK\] cannot be filled: the tokenizer has no"):
        blank_prompt("The [sMASK]", tokenizer, BlankLayout())


def test_generate_raises_when_the_prompt_is_longer_than_the_context(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(max_position_embeddings=16), tokenizer)
    message = "prompt has 22 tokens but the model's context holds 16: shorten it by at least 6"
    with pytest.raises(ValueError, match=message):
        generator.generate("0" * 20)


def test_fill_raises_when_there_is_no_room_for_an_answer(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(max_position_embeddings=16), tokenizer)
    message = r"no room for an answer: the prompt has 14 tokens, its 2 blank\(s\) need at least 4"
    with pytest.raises(ValueError, match=message + ".*shorten the prompt by at least 2 tokens"):
        generator.fill("[MASK]" + "0" * 10 + "[MASK]")


def test_causal_prompt_raises_when_empty(tokenizer: ByteBPETokenizer) -> None:
    with pytest.raises(ValueError, match="prompt is empty: give it some text$"):
        continuation_prompt("", tokenizer, CausalLayout())
