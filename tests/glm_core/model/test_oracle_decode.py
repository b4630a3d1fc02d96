"""The compiled decode step against float64 transcriptions of the members, prefixes included."""

import pytest
import torch

from glm_core.attention import LeftPadded, PrefixLM
from glm_core.infer.fast_decode import FastDecoder
from glm_core.infer.kv_cache import KVCache
from glm_core.testing import assert_relative, relative_error
from glm_kernels.cpu import library

from .oracle_models import HEADS, LAYERS, LENGTH, MODELS, add_prefix, batch, setup, visibility

READ, PADS = 8, (0, 4)
"""Columns of the prompt: those that see each other are among them."""
TOLERANCE = 1.5e-6

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason="no compiled kernels")


def decoded(model, ids_BT, positions_B2T, front):
    """Logits of the columns behind the prompt, each of a step of its own."""
    mask = LeftPadded(PrefixLM((5, 3)), PADS)
    cache = KVCache.for_model(model.config, len(PADS), front + LENGTH)
    decoder, columns = FastDecoder(model), []
    with torch.inference_mode():
        model(ids_BT[:, :READ], positions_B2T[..., :READ], mask, cache)
    for column in range(READ, LENGTH):
        places = [(place[0], place[1]) for place in positions_B2T[..., column].tolist()]
        columns.append(decoder.step(ids_BT[:, column].tolist(), places, PADS, cache))
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("isa", [name for name in library.ISAS if name != "amx"])
@pytest.mark.parametrize("name", MODELS)
def test_step_equals_the_transcription(name, isa):
    if isa not in library.available_isas():
        pytest.skip(f"this processor has no {isa}")
    model, weights, oracle = setup(name, ffn_hidden_size=48)
    ids, positions, _ = batch()
    visible, _ = visibility("left")
    found, expected = [], []
    for front in (0, 3):
        weights = add_prefix(model, "table", front) if front else weights
        with library.use_isa(isa):
            found.append(decoded(model, ids, positions, front).numpy())
        logits = oracle(weights, ids.numpy(), positions.numpy(), visible, LAYERS, HEADS)
        expected.append(logits[:, READ:])
        # worst measured, fp32: 2.8e-7 (chatglm2)
        assert_relative(found[-1], expected[-1], TOLERANCE, f"{name} {isa}, prefix of {front}")
    assert relative_error(found[0], expected[1]) > 0.02
