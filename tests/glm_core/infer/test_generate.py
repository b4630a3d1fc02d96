"""Decoding: greedy equals the full forward, a batch equals single prompts, the cache is reused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from glm_core.attention import Causal, PrefixLM
from glm_core.data.layout import SpecialIds, blank_sample, suffix_sample
from glm_core.infer import CausalLayout, SamplingConfig, TextGenerator
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer, encode_prompt

Build = Callable[..., Transformer]
TEXTS = ["The with statement", "A", "context manager enters and leaves it. The", "größe"]


def _never_stop(**fields: object) -> SamplingConfig:
    """A config whose answers are all as long as allowed, so that lengths are known."""
    config = SamplingConfig(max_new_tokens=12, min_new_tokens=12)
    return replace(config, **fields)  # type: ignore[arg-type]


def _specials(tokenizer: ByteBPETokenizer) -> list[int]:
    return [t for t in range(tokenizer.vocab_size) if tokenizer.decode_bytes([t]) == b""]


def _greedy_by_full_forwards(
    model: Transformer,
    tokenizer: ByteBPETokenizer,
    context: list[int],
    masks: list[int],
    lengths: list[int],
) -> list[list[int]]:
    """The definition, without a cache: one whole forward for each token."""
    ids = list(context)
    places = [(column, 0) for column in range(len(ids))]
    answers: list[list[int]] = []
    for mask_index, length in zip(masks, lengths, strict=True):
        ids.append(tokenizer.sop_id)
        places.append((mask_index, 1))
        answers.append([])
        for step in range(length):
            positions = torch.tensor([places]).transpose(1, 2)
            with torch.no_grad():
                hidden = model(torch.tensor([ids]), positions, PrefixLM((len(context),)))
                logits = model.logits(hidden[0, -1])
            logits[_specials(tokenizer)] = float("-inf")
            answers[-1].append(int(logits.argmax()))
            ids.append(answers[-1][-1])
            places.append((mask_index, step + 2))
    return answers


def test_greedy_equals_argmax_of_full_forwards_when_continuing(
    model_of_each_position: Transformer, tokenizer: ByteBPETokenizer
) -> None:
    model = model_of_each_position
    context = [tokenizer.cls_id, *tokenizer.encode(TEXTS[0]), tokenizer.gmask_id]
    expected = _greedy_by_full_forwards(model, tokenizer, context, [len(context) - 1], [12])
    (completion,) = TextGenerator(model, tokenizer).generate(TEXTS[0], _never_stop())
    assert [completion.tokens] == expected
    assert completion.finish_reason == "max_new_tokens"


def test_greedy_equals_argmax_of_full_forwards_when_filling_several_blanks(
    model_of_each_position: Transformer, tokenizer: ByteBPETokenizer
) -> None:
    model, text = model_of_each_position, "The [MASK] wraps [sMASK] of [MASK]. Then [gMASK]"
    inner = encode_prompt(tokenizer, text)
    context = [tokenizer.cls_id, *inner]
    kinds = {tokenizer.mask_id, tokenizer.smask_id, tokenizer.gmask_id}
    masks = [column for column, token in enumerate(context) if token in kinds]
    expected = _greedy_by_full_forwards(model, tokenizer, context, masks, [5] * 4)
    config = SamplingConfig(max_new_tokens=5, min_new_tokens=5)
    filled = TextGenerator(model, tokenizer).fill(text, config)
    assert [blank.tokens for blank in filled.blanks] == expected


def test_context_ends_with_eos_unless_the_text_ends_with_gmask(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model, text = build_model(), "The [MASK] wraps"
    context = [tokenizer.cls_id, *encode_prompt(tokenizer, text), tokenizer.eos_id]
    mask = context.index(tokenizer.mask_id)
    expected = _greedy_by_full_forwards(model, tokenizer, context, [mask], [12])
    filled = TextGenerator(model, tokenizer).fill(text, _never_stop())
    assert [filled.blanks[0].tokens] == expected


def test_every_column_goes_through_the_model_once_when_filling_several_blanks(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model, columns = build_model(), []
    hook = model.register_forward_pre_hook(lambda _, args: columns.append(args[0].shape[1]))
    config = SamplingConfig(max_new_tokens=4, min_new_tokens=4)
    text = "The [MASK] wraps [MASK]"
    TextGenerator(model, tokenizer).fill(text, config)
    hook.remove()
    context = len(encode_prompt(tokenizer, text)) + 2
    # Twice sop and four tokens; the very last token need not be seen.
    assert sum(columns) == context + 2 * 5 - 1 and columns[0] == context + 1


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_batch_equals_single_when_lengths_differ(
    model_of_each_position: Transformer, tokenizer: ByteBPETokenizer, temperature: float
) -> None:
    generator = TextGenerator(model_of_each_position, tokenizer)
    configs = [
        SamplingConfig(max_new_tokens=4 + 5 * row, temperature=temperature, top_p=0.95, seed=row)
        for row in range(len(TEXTS))
    ]
    together = generator.generate(TEXTS, configs)
    alone = [generator.generate(text, cfg)[0] for text, cfg in zip(TEXTS, configs, strict=True)]
    assert [c.tokens for c in together] == [c.tokens for c in alone]
    # Measured worst error of the summed log-probability: 7.6e-6.
    assert [c.logprob for c in together] == pytest.approx([c.logprob for c in alone], abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_batch_equals_single_when_numbers_of_blanks_differ(
    model_of_each_position: Transformer, tokenizer: ByteBPETokenizer, temperature: float
) -> None:
    texts = [
        "The [MASK] statement [MASK] a [MASK].",
        "A [MASK] manager",
        "The return [sMASK]. The value goes [MASK] the caller [gMASK]",
    ]
    generator = TextGenerator(model_of_each_position, tokenizer)
    configs = [
        SamplingConfig(
            max_new_tokens=size, temperature=temperature, stop=["e"], repetition_penalty=1.2
        )
        for size in (3, 6, 9)
    ]
    together = generator.fill_batch(texts, configs)
    alone = [generator.fill(text, cfg) for text, cfg in zip(texts, configs, strict=True)]
    assert [f.text for f in together] == [f.text for f in alone]
    assert [[b.tokens for b in f.blanks] for f in together] == [
        [b.tokens for b in f.blanks] for f in alone
    ]


def test_later_blank_does_not_see_a_stop_string_that_was_cut_off(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(seed=1), tokenizer)
    text = "The [MASK] wraps [MASK]."
    free = generator.fill(text, _never_stop())
    cut = tokenizer.decode(free.blanks[0].tokens[5:7])
    config = _never_stop(stop=[cut])
    filled = generator.fill(text, config)
    kept = filled.blanks[0].tokens
    assert filled.blanks[0].finish_reason == "stop_string"
    assert kept == free.blanks[0].tokens[: len(kept)] and len(kept) <= 5
    context = [tokenizer.cls_id, *encode_prompt(tokenizer, text), tokenizer.eos_id]
    masks = [i for i, token in enumerate(context) if token == tokenizer.mask_id]
    expected = _greedy_by_full_forwards(
        generator.model, tokenizer, context, masks, [len(kept), len(filled.blanks[1].tokens)]
    )
    assert expected == [kept, filled.blanks[1].tokens]


def test_sample_depends_on_its_seed_alone_when_asked_again(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(), tokenizer)
    config = _never_stop(temperature=2.0, seed=7)
    first, second = generator.generate([TEXTS[0], TEXTS[0]], config)
    other = generator.generate(TEXTS[0], replace(config, seed=8))[0]
    assert first.tokens == second.tokens == generator.generate(TEXTS[0], config)[0].tokens
    assert first.tokens != other.tokens


def test_stream_equals_generate(build_model: Build, tokenizer: ByteBPETokenizer) -> None:
    generator = TextGenerator(build_model(seed=2), tokenizer)
    for text in ("The with statement", "The with statement "):
        for config in (_never_stop(), _never_stop(stop=["a", "th"], temperature=1.0)):
            pieces = list(generator.stream(text, config))
            assert "".join(pieces) == generator.generate(text, config)[0].text
            assert "" not in pieces


def test_causal_model_goes_on_where_the_prompt_ends(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model = build_model(generation_layout=GenerationLayout.causal)
    ids = tokenizer.encode(TEXTS[2])
    expected: list[int] = []
    for _ in range(12):
        with torch.no_grad():
            logits = model.logits(model(torch.tensor([ids + expected]), None, Causal())[0, -1])
        logits[_specials(tokenizer)] = float("-inf")
        expected.append(int(logits.argmax()))
    generator = TextGenerator(model, tokenizer)
    completions = generator.generate([TEXTS[1], TEXTS[2]], _never_stop())
    assert completions[1].tokens == expected
    assert completions[0].tokens == generator.generate(TEXTS[1], _never_stop())[0].tokens


def test_chatglm2_layout_puts_its_marks_first(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    layout = CausalLayout(begins_with=("[gMASK]", "<|startofpiece|>"))
    assert layout.frame([5, 6], tokenizer) == [tokenizer.gmask_id, tokenizer.sop_id, 5, 6]


def test_blank_1d_model_counts_positions_on_after_gmask(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model = build_model(generation_layout=GenerationLayout.blank_1d, position="rope")
    context = [tokenizer.cls_id, *tokenizer.encode("A"), tokenizer.gmask_id]
    ids = [*context, tokenizer.sop_id]
    expected: list[int] = []
    for _ in range(12):
        with torch.no_grad():
            hidden = model(torch.tensor([ids + expected]), None, PrefixLM((len(context),)))
        logits = model.logits(hidden[0, -1]).detach()
        logits[_specials(tokenizer)] = float("-inf")
        expected.append(int(logits.argmax()))
    assert TextGenerator(model, tokenizer).generate("A", _never_stop())[0].tokens == expected


def test_answers_fill_the_context_and_say_so_when_it_ends(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model = build_model(max_position_embeddings=32)
    generator = TextGenerator(model, tokenizer)
    config = SamplingConfig(max_new_tokens=50, min_new_tokens=50)
    (completion,) = generator.generate("A", config)
    # [CLS] A [gMASK] <sop> take 4 of 32 columns.
    assert (len(completion.tokens), completion.finish_reason) == (28, "context")
    filled = generator.fill("A [MASK] B [MASK]", config)
    assert [blank.finish_reason for blank in filled.blanks] == ["context", "context"]
    assert len(filled.blanks[1].tokens) == 1


def test_generating_leaves_a_training_model_in_training(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model = build_model(hidden_dropout=0.5).train()
    generator = TextGenerator(model, tokenizer)
    first = generator.generate("A", _never_stop())[0].tokens
    assert first == generator.generate("A", _never_stop())[0].tokens
    assert model.training


def test_answers_hold_no_special_and_no_padding_tokens(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model = build_model(vocab_size=tokenizer.vocab_size + 64)
    config = SamplingConfig(max_new_tokens=60, min_new_tokens=60, temperature=50.0)
    tokens = TextGenerator(model, tokenizer).generate("A", config)[0].tokens
    assert not set(tokens) & set(_specials(tokenizer))
    assert max(tokens) < tokenizer.vocab_size


def test_stream_raises_when_beams_are_asked_for(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    with pytest.raises(ValueError, match="num_beams is 3: it must be 1 when streaming"):
        TextGenerator(build_model(), tokenizer).stream("A", SamplingConfig(num_beams=3))


def test_generate_raises_when_configs_do_not_match_texts(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    with pytest.raises(ValueError, match="1 sampling configs were given for 2 texts"):
        TextGenerator(build_model(), tokenizer).generate(["A", "B"], [SamplingConfig()])


def test_generator_raises_when_the_tokenizer_has_more_ids_than_the_model(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    with pytest.raises(ValueError, match="320 ids but the model's vocab_size is 300: use the"):
        TextGenerator(build_model(vocab_size=300), tokenizer)


@pytest.mark.parametrize("text", ["The [MASK] wraps [MASK] of it", "A context [gMASK]"])
def test_model_is_shown_what_training_showed_it(
    build_model: Build, tokenizer: ByteBPETokenizer, text: str
) -> None:
    """The columns of a filled prompt are those that the data pipeline lays out."""
    model = build_model(seed=8)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = model.register_forward_pre_hook(lambda _, args: seen.append((args[0], args[1])))
    config = SamplingConfig(max_new_tokens=5, min_new_tokens=5)
    filled = TextGenerator(model, tokenizer).fill(text, config)
    hook.remove()
    ids = SpecialIds.of(tokenizer)
    pieces = [tokenizer.encode(p.removesuffix(" ")) for p in re.split(r"\[g?MASK\]", text)]
    whole, starts = [ids.cls], []
    for piece, blank in zip(pieces, filled.blanks, strict=False):
        whole += piece
        starts.append(len(whole))
        whole += blank.tokens
    whole += [*pieces[-1]] if text.endswith("[gMASK]") else [*pieces[-1], ids.eos]
    if text.endswith("[gMASK]"):
        sample = suffix_sample(np.array(whole), starts[0], ids.gmask, ids)
    else:
        order = np.arange(len(starts))
        lengths = np.full(len(starts), 5)
        sample = blank_sample(np.array(whole), np.array(starts), lengths, order, ids.mask, ids)
    shown = torch.cat([part for part, _ in seen], dim=1)[0].tolist()
    places = torch.cat([part for _, part in seen], dim=2)[0].tolist()
    # The last token of the last answer has no need to be an input.
    assert shown == sample.input_ids[: len(shown)].tolist() and len(sample) - len(shown) <= 1
    assert places == sample.position_ids[:, : len(shown)].tolist()
