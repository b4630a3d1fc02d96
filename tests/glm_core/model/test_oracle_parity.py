"""Our model against float64 transcriptions of the members that transformers does not have."""

import math

import numpy as np
import pytest
import torch

from glm_core.attention import BACKENDS, LeftPadded, Packed, PrefixLM, RightPadded
from glm_core.testing import assert_relative, randomize, relative_error, tiny_model
from glm_core.tune.prefix import PrefixEncoder, prefix_width

from .numpy_oracles import (
    chatglm2_logits,
    chatglm_6b_logits,
    codegeex_logits,
    glm_130b_logits,
    glm_logits,
    loss_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

LAYERS, HEADS, HEAD_DIM, VOCAB, LENGTH = 2, 4, 16, 53, 11

# Preset, oracle, what the tiny config changes.
MODELS = {
    "glm": ("glm-base", glm_logits, {}),
    "glm_130b": ("glm-130b", glm_130b_logits, {"rotary_dim": 16}),
    "chatglm_6b": (
        "chatglm-6b",
        chatglm_6b_logits,
        {"rotary_dim": 16, "residual_scale": math.sqrt(56)},
    ),
    "chatglm2": ("chatglm2-6b", chatglm2_logits, {"rotary_dim": 8, "num_kv_heads": 2}),
    "codegeex": ("codegeex-13b", codegeex_logits, {}),
}

# Worst measured, fp32: logits 3.7e-7, slopes 3.4e-7.
TOLERANCE = 2e-6


def prefix_sees(prefix):
    return lambda q, k: k <= q or k < prefix


def rows_of(mask):
    """Each row's [start, stop) and rule inside it, written down by hand."""
    return {
        "prefix": [[(0, 11, prefix_sees(4))], [(0, 11, prefix_sees(9))]],
        "left": [[(0, 11, prefix_sees(5))], [(4, 11, prefix_sees(3))]],
        "right": [[(0, 7, prefix_sees(2))], [(0, 11, prefix_sees(6))]],
        "packed": [
            [(0, 4, prefix_sees(2)), (4, 11, prefix_sees(5))],
            [(0, 3, prefix_sees(1)), (3, 5, prefix_sees(0)), (5, 9, prefix_sees(3))],
        ],
    }[mask]


MASKS = {
    "prefix": PrefixLM((4, 9)),
    "left": LeftPadded(PrefixLM((5, 3)), (0, 4)),
    "right": RightPadded(PrefixLM((2, 6)), (7, 11)),
    "packed": Packed((((4, 2), (7, 5)), ((3, 1), (2, 0), (4, 3)))),
}


def visibility(mask):
    """bool [B, T, S], and bool [B, T] for the columns that hold a token."""
    visible = np.zeros((2, LENGTH, LENGTH), dtype=bool)
    real = np.zeros((2, LENGTH), dtype=bool)
    for row, samples in enumerate(rows_of(mask)):
        for start, stop, rule in samples:
            real[row, start:stop] = True
            for q in range(start, stop):
                for k in range(start, stop):
                    visible[row, q, k] = rule(q - start, k - start)
    visible |= np.eye(LENGTH, dtype=bool) & ~real[:, None]
    return visible, real


def setup(name, backend="auto", **changes):
    """Returns our model, its weights in float64, and the oracle with its sizes filled in."""
    family, oracle, tiny = MODELS[name]
    shape = {"num_layers": LAYERS, "num_heads": HEADS, "num_kv_heads": HEADS, "vocab_size": VOCAB}
    shape |= {"hidden_size": HEADS * HEAD_DIM, "head_dim": HEAD_DIM, "ffn_hidden_size": 37}
    shape |= tiny | changes
    model = tiny_model(family, seed=3, attention_backend=backend, **shape)
    return model, weights_of(model), oracle


def weights_of(model):
    return {key: value.double().numpy() for key, value in model.state_dict().items()}


PROJECTIONS = {
    "table": {},
    "chatglm_projection": {"projection": True},
    "chatglm2_projection": {"projection": True, "projection_input_size": prefix_width},
}


def add_prefix(model, projection, count=3):
    """Gives the model a prefix that matters; its weights then include the prefix's."""
    sizes = {
        key: value(model.config) if callable(value) else value
        for key, value in PROJECTIONS[projection].items()
    }
    model.prefix = PrefixEncoder(model.config, count, **sizes).eval()
    randomize(model.prefix, seed=8)
    return weights_of(model)


def batch():
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, VOCAB, (2, LENGTH), generator=generator)
    positions = torch.randint(0, 48, (2, 2, LENGTH), generator=generator)
    labels = torch.randint(0, VOCAB, (2, LENGTH), generator=generator)
    return ids, positions, labels


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_the_transcription(name, backend, mask, untraced_flex):
    model, weights, oracle = setup(name, backend)
    ids, positions, _ = batch()
    visible, real = visibility(mask)
    expected = oracle(weights, ids.numpy(), positions.numpy(), visible, LAYERS, HEADS)
    with torch.no_grad():
        actual = model.logits(model(ids, positions, MASKS[mask])).numpy()
    assert_relative(actual[real], expected[real], TOLERANCE, f"{name} {backend} {mask}")


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("mask", ["left", "packed"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_the_transcription_when_prefixed(
    name, backend, mask, projection, untraced_flex
):
    model, _, oracle = setup(name, backend)
    ids, positions, _ = batch()
    visible, real = visibility(mask)
    with torch.no_grad():
        without = model.logits(model(ids, positions, MASKS[mask])).numpy()
        weights = add_prefix(model, projection)
        actual = model.logits(model(ids, positions, MASKS[mask])).numpy()
    expected = oracle(weights, ids.numpy(), positions.numpy(), visible, LAYERS, HEADS)
    assert_relative(actual[real], expected[real], TOLERANCE, f"{name} {backend} {mask} prefixed")
    assert relative_error(without[real], expected[real]) > 0.02


def test_logits_equal_the_transcription_when_positions_are_divided():
    model, weights, oracle = setup("chatglm2", rope_position_scale=4.0)
    ids, positions, _ = batch()
    visible, real = visibility("left")
    arguments = (weights, ids.numpy(), positions.numpy(), visible, LAYERS, HEADS)
    expected = oracle(*arguments, position_scale=4.0)
    with torch.no_grad():
        actual = model.logits(model(ids, positions, MASKS["left"])).numpy()
    assert_relative(actual[real], expected[real], TOLERANCE, "chatglm2 divided positions")
    assert relative_error(oracle(*arguments)[real], expected[real]) > 0.02


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_equal_the_transcription_when_pb_relax_is_on(backend, untraced_flex):
    model, weights, oracle = setup("glm", backend, attention_scale=8.0)
    ids, positions, _ = batch()
    visible, real = visibility("left")
    arguments = (weights, ids.numpy(), positions.numpy(), visible, LAYERS, HEADS)
    expected = oracle(*arguments, attention_scale=8.0)
    # PB-relax changes the rounding, never the result.
    assert_relative(oracle(*arguments)[real], expected[real], 1e-13)
    with torch.no_grad():
        actual = model.logits(model(ids, positions, MASKS["left"])).numpy()
    assert_relative(actual[real], expected[real], TOLERANCE, f"glm {backend} pb_relax")


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", MODELS)
def test_gradient_is_the_slope_of_the_transcription(name, mask):
    """Each gradient against a central difference along its own signs, where nothing cancels."""
    model, weights, oracle = setup(name, embedding_grad_scale=1.0)
    ids, positions, labels = batch()
    visible, real = visibility(mask)
    labels = labels.where(torch.from_numpy(real), -100)
    model.loss(model(ids, positions, MASKS[mask]), labels)[0].backward()

    def loss_at(key, step):
        moved = {**weights, key: weights[key] + step}
        arguments = (ids.numpy(), positions.numpy(), visible, LAYERS, HEADS)
        return loss_of(oracle(moved, *arguments), labels.numpy())

    for key, parameter in model.named_parameters():
        gradient = parameter.grad.double().numpy()
        step = 1e-6 * np.sign(gradient)
        slope = (loss_at(key, step) - loss_at(key, -step)) / 2e-6
        actual = np.array([np.abs(gradient).sum()])
        assert_relative(actual, np.array([slope]), TOLERANCE, f"{name} slope {key}")


def test_block_positions_matter_only_when_two_dimensional():
    ids, positions, _ = batch()
    other = positions.clone()
    other[:, 1] = 0
    is_2d_by_name = {name: name in ("glm", "chatglm_6b") for name in MODELS}
    for name, is_2d in is_2d_by_name.items():
        model = setup(name)[0]
        assert torch.equal(model(ids, positions), model(ids, other)) != is_2d
