"""Rows of the head beyond the tokenizer (50400 to 52223 in CodeGeeX-13B) are never chosen.

In the original nothing masks them. Here two models differ in these rows alone: in one they have the
largest logits by far. Whatever decodes, both must say the same.
"""

import pytest
import torch

from glm_core.checkpoint import load_model
from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.infer import batch as batch_module
from glm_core.infer.blanks import continuation_prompt
from glm_core.infer.engine import Engine, EngineConfig, EngineRequest
from glm_core.infer.fast_decode import fast_decoder
from glm_core.infer.grammar import Regex
from glm_core.infer.graph_decode import graph_decoder

from .released_folders import EXTRA, PIECES, write_codegeex_13b

TEXT = "def add(a, b):\n    return"
SETTINGS = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "seed": 3},
    "nucleus": {"temperature": 0.9, "top_p": 0.8, "top_k": 40, "seed": 4},
    "min_p": {"temperature": 2.0, "min_p": 0.01, "seed": 5},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    "beams": {"num_beams": 3},
}
VOCAB = PIECES + EXTRA


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("padding")
    write_codegeex_13b(root / "quiet")
    write_codegeex_13b(root / "loud", loud_padding=True)
    return root


@pytest.fixture(scope="module")
def pair(folders):
    """The quiet and the loud model."""
    return [load_model(folders / name) for name in ("quiet", "loud")]


def answer(model, tokenizer, grammar=None, **settings):
    config = SamplingConfig(max_new_tokens=12, min_new_tokens=4, **settings)
    (found,) = TextGenerator(model, tokenizer).generate(TEXT, config, grammar)
    return list(found.tokens)


def assert_same(found):
    quiet, loud = found
    assert quiet == loud and len(quiet) >= 4
    runs = set(range(PIECES + 9, PIECES + 18))
    assert all(token < PIECES or token in runs for token in quiet)


def test_padding_would_win_when_nothing_masked_it(folders):
    model, tokenizer = load_model(folders / "loud")
    with torch.no_grad():
        logits = model.logits(model(torch.tensor([tokenizer.encode(TEXT)])))
    assert (model.config.vocab_size, tokenizer.vocab_size) == (512, VOCAB)
    assert (logits.argmax(-1) >= VOCAB).double().mean() > 0.9


@pytest.mark.parametrize("setting", SETTINGS)
def test_padding_is_never_chosen_when_the_step_is_compiled(pair, setting):
    assert_same([answer(model, tokenizer, **SETTINGS[setting]) for model, tokenizer in pair])


@pytest.mark.parametrize("setting", ["greedy", "sampled"])
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_padding_is_never_chosen_when_matrices_are_quantized(folders, quantize, setting):
    pair = [load_model(folders / name, quantize=quantize) for name in ("quiet", "loud")]
    assert_same([answer(model, tokenizer, **SETTINGS[setting]) for model, tokenizer in pair])


@pytest.mark.parametrize("setting", SETTINGS)
def test_padding_is_never_chosen_when_the_model_itself_decodes(pair, setting):
    for model, _ in pair:
        model.choose_attention("eager")
    try:
        assert all(fast_decoder(model) is None for model, _ in pair)
        assert_same([answer(model, tokenizer, **SETTINGS[setting]) for model, tokenizer in pair])
    finally:
        for model, _ in pair:
            model.choose_attention("auto")


@pytest.mark.parametrize("setting", ["greedy", "sampled"])
def test_padding_is_never_chosen_when_steps_are_static(pair, setting, monkeypatch):
    monkeypatch.setattr(
        batch_module, "column_decoder", lambda model: graph_decoder(model, lambda step, model: step)
    )
    assert_same([answer(model, tokenizer, **SETTINGS[setting]) for model, tokenizer in pair])


def test_padding_is_never_chosen_when_a_grammar_rules(pair):
    grammar = Regex(r"[a-z ]{6,20}")
    assert_same([answer(model, tokenizer, grammar) for model, tokenizer in pair])


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "beams"])
def test_padding_is_never_chosen_when_the_engine_answers(pair, setting):
    found = []
    for model, tokenizer in pair:
        with Engine(model, tokenizer, config=EngineConfig(cache_bytes=1 << 20)) as engine:
            sampling = SamplingConfig(max_new_tokens=12, min_new_tokens=4, **SETTINGS[setting])
            prompt = continuation_prompt(TEXT, tokenizer, engine.layout)
            request = EngineRequest(prompt=prompt, sampling=sampling, logprobs=5, choices=3)
            choices = [choice[0] for choice in engine.submit(request).outcome().choices]
        tokens = [token for choice in choices for token in choice.tokens]
        found.append(tokens)
        tops = [top for c in choices for chosen in c.logprobs for top, _ in chosen.top]
        assert len(tops) == 5 * len(tokens) and max(tops) < VOCAB
    assert_same(found)


def test_padding_is_refused_when_a_prompt_names_it(folders):
    model, tokenizer = load_model(folders / "quiet")
    with pytest.raises(ValueError, match=f"it must hold ids between 0 and {VOCAB - 1}"):
        TextGenerator(model, tokenizer).stream_ids([1, 2, VOCAB])
