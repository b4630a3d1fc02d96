"""What the released models write, decoded here by hand, and facts of the original's sampling."""

import pytest
import torch

from glm_core.checkpoint import load_model
from glm_core.infer import SamplingConfig, TextGenerator

from . import chatglm2_oracle as chatglm2
from . import codegeex_oracle as codegeex
from .released_folders import EXTRA, PIECES, write_codegeex2, write_codegeex4, write_codegeex_13b

TEXT = "def add(a, b):\n    return"


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Folder, function from ids to logits, and ids in front of a prompt, by name."""
    root = tmp_path_factory.mktemp("members")
    state = write_codegeex_13b(root / "codegeex-13b")
    two = write_codegeex2(root / "codegeex2-6b", torch.float32)
    four, ids = write_codegeex4(root / "codegeex4-9b", torch.float32)
    return {
        "codegeex-13b": (root / "codegeex-13b", lambda ids: codegeex.logits(state, ids, 8), ()),
        "codegeex2-6b": (
            root / "codegeex2-6b",
            lambda ids: chatglm2.logits(two, chatglm2.CODEGEEX2, ids),
            (401, 403),  # [gMASK] and sop of 405 ids; 64790 and 64792 of the released 64794
        ),
        "codegeex4-9b": (
            root / "codegeex4-9b",
            lambda ids: chatglm2.logits(four, chatglm2.CODEGEEX4, ids),
            (ids["[gMASK]"], ids["<sop>"]),
        ),
    }


def by_hand(logits_of, ids, tokenizer, count):
    """Greedy continuation: the best id that is text or a run of spaces, read anew every time."""
    specials = sorted(tokenizer.special_ids)
    ids, new = list(ids), []
    for _ in range(count):
        row = logits_of(ids)[-1].clone()
        row[tokenizer.vocab_size :] = -torch.inf
        row[specials] = -torch.inf
        ids.append(int(row.argmax()))
        new.append(ids[-1])
    return new


@pytest.mark.parametrize("name", ["codegeex-13b", "codegeex2-6b", "codegeex4-9b"])
def test_text_is_what_decoding_by_hand_gives_when_greedy(members, name):
    folder, logits_of, frame = members[name]
    model, tokenizer = load_model(folder)
    prompt = [*frame, *tokenizer.encode(TEXT)]
    expected = by_hand(logits_of, prompt, tokenizer, 24)
    config = SamplingConfig(max_new_tokens=24, min_new_tokens=24)
    (found,) = TextGenerator(model, tokenizer).generate(TEXT, config)
    assert found.tokens == expected
    texts = [TEXT, "x", "for index in range(10):\n    print"]
    together = TextGenerator(model, tokenizer).generate(texts, config)
    for text, one in zip(texts, together, strict=True):
        ids = [*frame, *tokenizer.encode(text)]
        assert one.tokens == by_hand(logits_of, ids, tokenizer, 24)


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("name", ["codegeex-13b", "codegeex2-6b", "codegeex4-9b"])
def test_text_is_written_when_quantized(members, name, quantize):
    model, tokenizer = load_model(members[name][0], quantize=quantize)
    config = SamplingConfig(max_new_tokens=16, min_new_tokens=16)
    (found,) = TextGenerator(model, tokenizer).generate(TEXT, config)
    (same,) = TextGenerator(model, tokenizer).generate(TEXT, config)
    assert found == same and len(found.tokens) == 16
    assert set(found.tokens).isdisjoint(tokenizer.special_ids)
    assert tokenizer.decode(found.tokens).startswith(found.text)  # characters cut at the end wait


@pytest.fixture(scope="module")
def generator(members):
    return TextGenerator(*load_model(members["codegeex-13b"][0]))


def tokens(generator, **settings):
    config = SamplingConfig(**({"max_new_tokens": 12, "min_new_tokens": 12} | settings))
    return generator.generate(TEXT, config)[0].tokens


def test_temperature_changes_nothing_when_greedy(generator):
    """The original's greedy ignores temperature; ours is temperature 0, and no other is greedy."""
    assert tokens(generator) == tokens(generator, temperature=0.0)
    near = tokens(generator, temperature=1e-4, seed=5)
    assert near == tokens(generator)


def test_nucleus_is_everything_when_top_p_is_one(generator):
    """In the original top_p 0 turns the nucleus off; here 0 is refused, and 1 turns it off."""
    with pytest.raises(
        ValueError, match=r"sampling.top_p is 0\.0: it must lie in \(0, 1\]; 1 keeps"
    ):
        SamplingConfig(top_p=0.0)
    drawn = {tuple(tokens(generator, temperature=3.0, top_p=1.0, seed=seed)) for seed in range(6)}
    assert len(drawn) == 6


def test_best_token_always_stays_when_the_nucleus_is_small(generator):
    """The first token over the threshold is kept, as in the original."""
    greedy = tokens(generator)
    assert tokens(generator, temperature=1.0, top_p=1e-6, seed=9) == greedy


@pytest.mark.parametrize("count", [1, 7, 20])
def test_length_counts_new_tokens_alone(generator, count):
    """The original's out_seq_length counts the prompt too; max_new_tokens never does."""
    for text in ("x", TEXT, TEXT * 2):
        config = SamplingConfig(max_new_tokens=count, min_new_tokens=count)
        (found,) = generator.generate(text, config)
        assert len(found.tokens) == count and found.finish_reason == "max_new_tokens"


def test_end_of_text_ends_an_answer(members):
    """The only end of CodeGeeX-13B, which is its padding too."""
    model, tokenizer = load_model(members["codegeex-13b"][0])
    end = tokenizer.eos_id
    assert (end, tokenizer.pad_id, tokenizer.stop_ids) == (PIECES - 1, PIECES - 1, (PIECES - 1,))
    assert tokenizer.vocab_size == PIECES + EXTRA
    config = SamplingConfig(max_new_tokens=9, logit_bias={end: 100.0})
    (found,) = TextGenerator(model, tokenizer).generate(TEXT, config)
    assert found.tokens == [] and found.finish_reason == "stop_token"
