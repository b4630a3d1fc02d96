"""Beam search against exhaustive search, and against transformers on the same weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch

from glm_core.attention import PrefixLM
from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.model import (
    Activation,
    GenerationLayout,
    Norm,
    Position,
    RopeLayout,
    Transformer,
    TransformerConfig,
)
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]


class LetterTokenizer:
    """Four letters and the special tokens: so few ids that every answer can be tried."""

    vocab_size, num_letters = 12, 4
    eos_id = pad_id = 4
    cls_id, mask_id, smask_id, gmask_id, sop_id, eop_id, dblock_id = range(5, 12)
    special_ids, stop_ids = frozenset(range(4, 12)), (4, 10)
    _names = {"[MASK]": 6, "[sMASK]": 7, "[gMASK]": 8}

    def encode(self, text: str) -> list[int]:
        return ["abcd".index(letter) for letter in text]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return "".join("abcd"[token] for token in ids if token < 4).encode()

    def decode(self, ids: Sequence[int]) -> str:
        return self.decode_bytes(ids).decode()

    def before_blank(self, text):
        return text

    def has(self, name: str) -> bool:
        return name in self._names

    def token_id(self, name: str) -> int:
        return self._names[name]


def _best_by_trying_all(
    model: Transformer, context: list[int], mask_index: int, most: int, length_penalty: float
) -> tuple[int, ...]:
    """Scores every answer of up to `most` tokens by full forwards."""
    tokens = LetterTokenizer()
    stops = [tokens.eos_id, tokens.eop_id]
    excluded = [5, 6, 7, 8, 9, 11]
    scores: dict[tuple[int, ...], float] = {}
    for length in range(most + 1):
        words = list(itertools.product(range(4), repeat=length))
        ids = torch.tensor([[*context, tokens.sop_id, *word] for word in words])
        position = torch.arange(ids.shape[1]).clamp(max=mask_index)
        position[: len(context)] = torch.arange(len(context))
        block = (torch.arange(ids.shape[1]) - len(context) + 1).clamp(min=0)
        places = torch.stack([position, block]).expand(len(words), 2, -1)
        with torch.no_grad():
            hidden = model(ids, places, PrefixLM((len(context),) * len(words)))
            logprobs = model.logits(hidden)[:, len(context) :].log_softmax(-1)
        assert not set(excluded) & set(stops)
        for row, word in enumerate(words):
            total = sum(float(logprobs[row, i, token]) for i, token in enumerate(word))
            if length == most:
                scores[word] = total / most**length_penalty
                continue
            for stop in stops:
                ended = total + float(logprobs[row, length, stop])
                scores[(*word, stop)] = ended / (length + 1) ** length_penalty
    return max(scores, key=scores.__getitem__)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_beam_search_equals_exhaustive_search_when_the_beam_is_wide(
    build_model: Build, seed: int, length_penalty: float
) -> None:
    tokenizer = LetterTokenizer()
    model = build_model(seed=seed, vocab_size=12, max_position_embeddings=32)
    config = SamplingConfig(max_new_tokens=4, num_beams=600, length_penalty=length_penalty)
    filled = TextGenerator(model, tokenizer).fill("ab[MASK]ad[MASK]", config)
    context = [5, 0, 1, 6, 0, 3, 6, 4]
    best = _best_by_trying_all(model, context, 3, 4, length_penalty)
    assert tuple(filled.blanks[0].tokens) == tuple(t for t in best if t < 4)
    stopped = best[-1] >= 4
    assert filled.blanks[0].finish_reason == ("stop_token" if stopped else "max_new_tokens")


def test_later_blank_after_beam_search_equals_a_prompt_with_the_first_one_given(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    """The cache after a search holds the answer found and nothing of what was tried."""
    generator = TextGenerator(build_model(seed=9), tokenizer)
    text = "The [MASK] wraps [MASK]."
    beams = SamplingConfig(max_new_tokens=5, min_new_tokens=5, num_beams=4)
    first, second = generator.fill(text, beams).blanks
    context = [tokenizer.cls_id, *tokenizer.encode("The"), tokenizer.mask_id]
    context += [*tokenizer.encode(" wraps"), tokenizer.mask_id, *tokenizer.encode(".")]
    context.append(tokenizer.eos_id)
    masks = [i for i, token in enumerate(context) if token == tokenizer.mask_id]
    ids = [*context, tokenizer.sop_id, *first.tokens, tokenizer.sop_id, *second.tokens]
    places = [(i, 0) for i in range(len(context))]
    for mask in masks:
        places += [(mask, step + 1) for step in range(6)]
    positions = torch.tensor([places]).transpose(1, 2)
    with torch.no_grad():
        hidden = generator.model(torch.tensor([ids]), positions, PrefixLM((len(context),)))
        logprobs = generator.model.logits(hidden)[0].log_softmax(-1)
    start = len(context) + 6
    expected = sum(float(logprobs[start + i, token]) for i, token in enumerate(second.tokens))
    # Measured worst error: 2e-6.
    assert second.logprob == pytest.approx(expected, abs=1e-4)


def test_wider_beam_finds_an_answer_at_least_as_probable_as_greedy(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(seed=5), tokenizer)
    greedy, wide = (
        generator.generate("A context", SamplingConfig(max_new_tokens=6, num_beams=beams))[0]
        for beams in (1, 16)
    )
    assert wide.logprob > greedy.logprob


def test_beam_search_stops_at_a_stop_string(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(seed=5), tokenizer)
    free = SamplingConfig(max_new_tokens=8, min_new_tokens=8, num_beams=3)
    text = generator.generate("A context", free)[0].text
    stop = text[3:5]
    config = SamplingConfig(max_new_tokens=8, min_new_tokens=8, num_beams=3, stop=[stop])
    completion = generator.generate("A context", config)[0]
    assert stop not in completion.text


def _glm4_like(tokenizer: ByteBPETokenizer) -> Transformer:
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        ffn_hidden_size=96,
        max_position_embeddings=96,
        norm=Norm.rmsnorm,
        activation=Activation.swiglu,
        position=Position.rope,
        rope_layout=RopeLayout.interleaved,
        rotary_dim=8,
        dense_bias=False,
        mlp_bias=False,
        tie_embeddings=False,
        init_std=0.2,
        generation_layout=GenerationLayout.causal,
    )
    model = Transformer(config)
    model.init_weights(11)
    return model.eval()


def _transformers_twin(model: Transformer) -> torch.nn.Module:
    """The same weights in transformers' GlmForCausalLM."""
    from transformers import GlmConfig, GlmForCausalLM

    ours, c = model.state_dict(), model.config
    twin = GlmForCausalLM(
        GlmConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.hidden_size,
            intermediate_size=c.ffn_hidden_size,
            num_hidden_layers=c.num_layers,
            num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            max_position_embeddings=c.max_position_embeddings,
            rms_norm_eps=c.norm_eps,
            attention_bias=True,
            tie_word_embeddings=False,
            pad_token_id=None,
            eos_token_id=None,
        )
    ).eval()
    sizes = [c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.num_kv_heads * c.head_dim]
    theirs = {
        "model.embed_tokens.weight": ours["word_embeddings.weight"],
        "model.norm.weight": ours["final_norm.weight"],
        "lm_head.weight": ours["output_layer.weight"],
    }
    for layer in range(c.num_layers):
        mine, its = f"layers.{layer}.", f"model.layers.{layer}."
        for kind in ("weight", "bias"):
            parts = ours[f"{mine}attention.query_key_value.{kind}"].split(sizes)
            for name, part in zip("qkv", parts, strict=True):
                theirs[f"{its}self_attn.{name}_proj.{kind}"] = part
        theirs[f"{its}self_attn.o_proj.weight"] = ours[f"{mine}attention.dense.weight"]
        theirs[f"{its}mlp.gate_up_proj.weight"] = ours[f"{mine}mlp.dense_h_to_4h.weight"]
        theirs[f"{its}mlp.down_proj.weight"] = ours[f"{mine}mlp.dense_4h_to_h.weight"]
        theirs[f"{its}input_layernorm.weight"] = ours[f"{mine}input_norm.weight"]
        theirs[f"{its}post_attention_layernorm.weight"] = ours[f"{mine}post_attention_norm.weight"]
    twin.load_state_dict(theirs)
    return twin


@pytest.mark.parametrize(
    ("num_beams", "length_penalty", "repetition_penalty"),
    [(1, 1.0, 1.3), (2, 1.0, 1.0), (4, 0.0, 1.0), (5, 2.0, 1.2), (8, -1.0, 1.0)],
)
def test_beam_search_equals_transformers_on_the_same_weights(
    tokenizer: ByteBPETokenizer, num_beams: int, length_penalty: float, repetition_penalty: float
) -> None:
    model = _glm4_like(tokenizer)
    # Stop tokens become likely, so that hypotheses end at different lengths.
    with torch.no_grad():
        model.get_submodule("output_layer").weight[[tokenizer.eos_id, tokenizer.eop_id]] *= 1.8
    text = "The with statement wraps a block"
    config = SamplingConfig(
        max_new_tokens=10,
        num_beams=num_beams,
        length_penalty=length_penalty,
        repetition_penalty=repetition_penalty,
    )
    (ours,) = TextGenerator(model, tokenizer).generate(text, config)
    ids = torch.tensor([tokenizer.encode(text)])
    stops = [tokenizer.eos_id, tokenizer.eop_id]
    specials = [t for t in range(tokenizer.vocab_size) if tokenizer.decode_bytes([t]) == b""]
    twin = _transformers_twin(model)
    output = twin.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=num_beams,
        length_penalty=length_penalty,
        repetition_penalty=repetition_penalty,
        early_stopping=False,
        max_new_tokens=10,
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_id,
        suppress_tokens=[token for token in specials if token not in stops],
    )
    theirs = [token for token in output[0, ids.shape[1] :].tolist() if token not in stops]
    assert ours.tokens == theirs
