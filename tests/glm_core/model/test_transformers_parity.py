"""Logits and gradients against the transformers library: GLM-4, GLM-4-0414 and LLaMA."""

import re
from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F

from glm_core.attention import Causal, LeftPadded, RightPadded
from glm_core.testing import assert_relative, randomize, tiny_model
from glm_core.tune.prefix import PrefixEncoder

transformers = pytest.importorskip("transformers")

VOCAB, HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM = 71, 96, 72, 6, 2, 16
BATCH, LENGTH = 3, 13

# Worst measured, fp32: logits 8.6e-7, gradients 2.0e-6 (largest entry of each tensor = 1).
TOLERANCE, GRADIENT_TOLERANCE = 2e-6, 4e-6

# Ours, the other library's class, layers, theta, tied.
CASES = {
    "glm": ("glm-4-9b", "Glm", 2, 1e4, False),
    "glm_long_context": ("glm-4-9b", "Glm", 3, 5e6, False),
    "glm4": ("glm-4-9b-0414", "Glm4", 2, 1e4, False),
    "glm4_deeper": ("glm-4-9b-0414", "Glm4", 3, 500.0, False),
    "llama": ("llama-7b", "Llama", 2, 1e4, False),
    "llama_tied": ("llama-7b", "Llama", 3, 5e5, True),
}

PADDING = {
    "none": (Causal(), [range(LENGTH)] * BATCH),
    "left": (LeftPadded(Causal(), (0, 3, 8)), [range(pad, LENGTH) for pad in (0, 3, 8)]),
    "right": (RightPadded(Causal(), (13, 9, 1)), [range(size) for size in (13, 9, 1)]),
}


def build(family, name, layers, theta, tied):
    """Returns our model and theirs, with the same random weights."""
    ours = tiny_model(
        family,
        seed=5,
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_layers=layers,
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        ffn_hidden_size=FFN,
        rotary_dim=HEAD_DIM if name == "Llama" else HEAD_DIM // 2,
        rope_theta=theta,
        tie_embeddings=tied,
    )
    rope = {"rope_type": "default", "rope_theta": theta}
    if name != "Llama":
        rope["partial_rotary_factor"] = 0.5
    config = getattr(transformers, f"{name}Config")(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=FFN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        rms_norm_eps=ours.config.norm_eps,
        rope_parameters=rope,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        attn_implementation="eager",
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    theirs = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    theirs.load_state_dict(translate(dict(ours.state_dict()), name, tied))
    return ours, theirs


def translate(ours, name, tied):
    """Renames and cuts our tensors (weights, or their gradients) into theirs."""
    theirs = {
        "model.embed_tokens.weight": ours.pop("word_embeddings.weight"),
        "model.norm.weight": ours.pop("final_norm.weight"),
    }
    theirs["lm_head.weight"] = (
        theirs["model.embed_tokens.weight"] if tied else ours.pop("output_layer.weight")
    )
    norms = {
        "input_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "attention_out_norm": "post_self_attn_layernorm",
        "mlp_out_norm": "post_mlp_layernorm",
        "attention.dense": "self_attn.o_proj",
        "mlp.dense_4h_to_h": "mlp.down_proj",
    }
    for key, value in ours.items():
        _, layer, *module, kind = key.split(".")
        module, start = ".".join(module), f"model.layers.{layer}"
        if module == "attention.query_key_value":
            sizes = [HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM]
            for part, rows in zip("qkv", value.split(sizes), strict=True):
                theirs[f"{start}.self_attn.{part}_proj.{kind}"] = rows
        elif module == "mlp.dense_h_to_4h" and name == "Llama":
            for part, rows in zip(("gate", "up"), value.chunk(2), strict=True):
                theirs[f"{start}.mlp.{part}_proj.{kind}"] = rows
        elif module == "mlp.dense_h_to_4h":
            theirs[f"{start}.mlp.gate_up_proj.{kind}"] = value
        else:
            theirs[f"{start}.{norms[module]}.{kind}"] = value
    return theirs


def gradients_of(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def fuse(gradients):
    """Joins q, k and v, so that they share one yardstick.

    A key bias shifts all scores of a query nearly alike, which softmax cancels: alone, its
    gradient would be compared to what rounding has left of it.
    """
    parts = defaultdict(list)
    for name in sorted(gradients):
        parts[re.sub(r"\.[qkv]_proj", ".qkv_proj", name)].append(gradients[name])
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def batch_for(rows):
    """Random ids with 0 as padding, labels, positions that start at each row's first token."""
    generator = torch.Generator().manual_seed(2)
    ids, labels, positions, attended = torch.zeros(4, BATCH, LENGTH, dtype=torch.int64)
    for row, columns in enumerate(rows):
        for column in columns:
            attended[row, column] = 1
            positions[row, column] = column - columns[0]
    ids = torch.randint(1, VOCAB, ids.shape, generator=generator) * attended
    labels = torch.randint(0, VOCAB, labels.shape, generator=generator)
    some = torch.rand(labels.shape, generator=generator) < 0.8
    return ids, labels.where(some & attended.bool(), -100), positions, attended


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_equal_transformers(case, padding):
    ours, theirs = build(*CASES[case])
    mask, rows = PADDING[padding]
    ids, labels, positions, attended = batch_for(rows)

    hidden = ours(ids, positions, mask)
    ours.loss(hidden, labels)[0].backward()
    expected = theirs(ids, attention_mask=attended, position_ids=positions).logits
    loss = F.cross_entropy(expected.flatten(0, 1), labels.flatten(), reduction="sum")
    loss.backward()

    real = attended.bool()
    assert_relative(ours.logits(hidden)[real], expected[real], TOLERANCE, f"{case} logits")
    actual = translate(gradients_of(ours), CASES[case][1], CASES[case][4])
    expected = gradients_of(theirs)
    actual.pop("lm_head.weight" if CASES[case][4] else "", None)
    actual, expected = fuse(actual), fuse(expected)
    assert actual.keys() == expected.keys()
    for name in expected:
        assert_relative(actual[name], expected[name], GRADIENT_TOLERANCE, f"{case} gradient {name}")


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("case", ["glm", "glm4", "llama"])
def test_logits_equal_transformers_when_prefixed(case, padding, projection):
    """Their cache of past keys and values, filled with the prefix."""
    ours, theirs = build(*CASES[case])
    ours.prefix = PrefixEncoder(ours.config, 4, projection).eval()
    randomize(ours.prefix, seed=6)
    mask, rows = PADDING[padding]
    ids, _, positions, attended = batch_for(rows)
    attended = torch.cat([torch.ones_like(attended[:, :4]), attended], dim=1)
    with torch.no_grad():
        actual = ours.logits(ours(ids, positions, mask))
        past = past_of(ours.prefix)
        cache = transformers.DynamicCache([(past[2 * n], past[2 * n + 1]) for n in range(2)])
        expected = theirs(
            ids, attention_mask=attended, position_ids=positions, past_key_values=cache
        ).logits
    real = attended[:, 4:].bool()
    assert_relative(actual[real], expected[real], TOLERANCE, f"{case} prefixed")  # worst 6.0e-7


def past_of(prefix):
    """The prefix as the originals shape it: [2 L, B, K, P, H]."""
    rows = prefix.embedding.weight
    if prefix.trans is not None:
        first, second = prefix.trans[0], prefix.trans[2]
        rows = F.linear(F.linear(rows, first.weight, first.bias).tanh(), second.weight, second.bias)
    past = rows.expand(BATCH, -1, -1).view(BATCH, 4, 4, KV_HEADS, HEAD_DIM)
    return past.permute(2, 0, 3, 1, 4)


@pytest.mark.parametrize("case", ["glm", "glm4", "llama"])
def test_default_positions_and_mask_are_theirs(case):
    ours, theirs = build(*CASES[case])
    ids = torch.randint(1, VOCAB, (2, 9))
    assert_relative(ours.logits(ours(ids)), theirs(ids).logits, TOLERANCE, f"{case} defaults")
