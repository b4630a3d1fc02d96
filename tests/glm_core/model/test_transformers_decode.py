"""The compiled decode step against the transformers library: GLM-4, GLM-4-0414 and LLaMA."""

import pytest
import torch

from glm_core.infer.fast_decode import FastDecoder
from glm_core.infer.kv_cache import KVCache
from glm_core.quantize import QuantizeConfig, quantize_
from glm_core.testing import assert_relative, relative_error
from glm_kernels.cpu import library

from . import test_transformers_parity as parity

READ, FFN = 9, 80
"""Columns of the prompt; rows of matrices in whole vectors."""

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason="no compiled kernels")


def decoded(model, ids, positions, mask, pads):
    """Logits of the columns behind the prompt, each of a step of its own."""
    cache = KVCache.for_model(model.config, parity.BATCH, parity.LENGTH)
    decoder, columns = FastDecoder(model), []
    with torch.inference_mode():
        model(ids[:, :READ], positions[:, :READ], mask, cache)
    for column in range(READ, parity.LENGTH):
        places = [(position, 0) for position in positions[:, column].tolist()]
        columns.append(decoder.step(ids[:, column].tolist(), places, pads, cache))
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("case", parity.CASES)
def test_step_equals_transformers(case, padding, monkeypatch):
    monkeypatch.setattr(parity, "FFN", FFN)
    ours, theirs = parity.build(*parity.CASES[case])
    mask, rows = parity.PADDING[padding]
    ids, _, positions, attended = parity.batch_for(rows)
    pads = [columns[0] for columns in rows]
    with torch.no_grad():
        expected = theirs(ids, attention_mask=attended, position_ids=positions).logits[:, READ:]
    found = decoded(ours, ids, positions, mask, pads)
    assert_relative(found, expected, 3e-6, f"{case} {padding}")  # measured worst 1.2e-6
    quantize_(ours, QuantizeConfig(bits=8, head=True))
    rounded = decoded(ours, ids, positions, mask, pads)
    # int8 rows of matrices of 96 columns: measured worst 2.9e-2
    assert 1e-4 < relative_error(rounded, expected) < 6e-2
