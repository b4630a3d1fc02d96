"""The static step as one graph: traced once, whatever the numbers in its tensors."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from glm_core.attention import Causal, LeftPadded
from glm_core.infer.kv_cache import KVCache
from glm_core.infer.static_step import column_inputs, static_step
from glm_core.model import Transformer
from glm_core.quantize import QuantizeConfig, quantize_
from glm_core.testing import relative_error, tiny_model
from glm_kernels import use_backend
from glm_kernels.triton.launch import unavailable

START, COLUMNS, ROOM, PADS = 5, 11, 32, (0, 3)


def steps(model: Transformer, step, start: int) -> list[float]:
    """Relative errors of columns start .. COLUMNS of two padded rows against one forward."""
    torch.manual_seed(0)
    ids_BT = torch.randint(0, 67, (2, COLUMNS))
    places_B2T = torch.stack([torch.arange(COLUMNS), torch.arange(COLUMNS) // 4]).expand(2, -1, -1)
    mask, errors = LeftPadded(Causal(), PADS), []
    with torch.inference_mode():
        expected = model.logits(model(ids_BT, places_B2T, mask))
        cache = KVCache.for_model(model.config, 2, ROOM)
        for tensor in (*cache.keys, *cache.values):
            tensor.zero_()
        model(ids_BT[:, :start], places_B2T[..., :start], mask, cache)
        for t in range(start, COLUMNS):
            places = [(place[0], place[1]) for place in places_B2T[..., t].tolist()]
            inputs_6B = column_inputs(ids_BT[:, t].tolist(), places, PADS, t, 0, 2)
            found = step(model, inputs_6B, cache.keys, cache.values)
            errors.append(relative_error(found, expected[:, t]))
    return errors


def traced(model: Transformer, start: int = START) -> tuple[int, float]:
    """How often the step is traced for all columns, and the worst error."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(static_step, fullgraph=True, backend=counter)
    worst = max(steps(model, compiled, start))
    return counter.frame_count, worst


def quantized_model(family: str, **changes: int) -> Transformer:
    model = tiny_model(family, head_dim=16, ffn_hidden_size=96, **changes)
    quantize_(model, QuantizeConfig(bits=4, group=32, head=True))
    return model


@pytest.mark.parametrize("family", ["glm-base", "codegeex-13b"])
def test_step_is_traced_once_when_columns_follow(family: str) -> None:
    count, worst = traced(tiny_model(family))
    assert count == 1
    assert worst < 5e-6  # measured worst 3.5e-7


@pytest.mark.parametrize("family", ["chatglm-6b", "chatglm2-6b"])
def test_step_is_traced_once_when_weights_are_quantized(family: str) -> None:
    count, worst = traced(quantized_model(family))
    assert count == 1
    assert worst < 1e-3  # measured worst 3.4e-5; see test_graph_decode.py


@pytest.mark.skipif(unavailable() is not None, reason="no Triton")
def test_step_is_traced_once_when_kernels_are_of_triton() -> None:
    with use_backend("triton", "attention"), use_backend("triton", "linear_weight_only"):
        count, worst = traced(quantized_model("chatglm2-6b", num_layers=1), COLUMNS - 2)
    assert count == 1
    assert worst < 5e-6  # measured worst 3.0e-7
