"""Our model against float64 transcriptions of the members that transformers does not have."""

import numpy as np
import pytest
import torch

from glm_core.attention import BACKENDS
from glm_core.testing import assert_relative, relative_error

from .numpy_oracles import loss_of
from .oracle_models import (
    HEADS,
    LAYERS,
    MASKS,
    MODELS,
    PROJECTIONS,
    add_prefix,
    batch,
    setup,
    visibility,
)

ON_CPU = [name for name in BACKENDS if name != "xformers"]
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

# Worst measured, fp32: logits 4.0e-7 (chatglm2; with a prefix too), slopes 4.5e-7 (glm).
TOLERANCE = 2e-6


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("backend", ON_CPU)
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
@pytest.mark.parametrize("backend", ON_CPU)
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


@pytest.mark.parametrize("backend", ON_CPU)
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
