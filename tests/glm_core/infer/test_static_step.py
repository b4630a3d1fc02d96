"""The static step as one graph: traced once, whatever the numbers in its tensors."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from glm_core.attention import Causal, LeftPadded
from glm_core.infer.kv_cache import KVCache
from glm_core.infer.static_step import column_inputs, static_step
from glm_core.model import Transformer
from glm_core.quantize import QuantizeConfig, quantize_
from glm_core.quantize.weight import QuantizedWeight
from glm_core.testing import relative_error, tiny_model
from glm_kernels import use_backend
from glm_kernels.triton.launch import INTERPRETED, unavailable

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


class Launches(TorchDispatchMode):
    """Notes what a GPU would be told to do, and that nothing is asked of the host."""

    SILENT = {"view", "_unsafe_view", "t", "transpose", "select", "slice", "unsqueeze", "expand"}
    SILENT |= {"split_with_sizes", "split", "unbind", "alias", "empty", "new_empty", "empty_like"}
    SILENT |= {"detach", "squeeze", "permute", "as_strided", "device", "promote_types"}

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            assert not isinstance(tensor, Tensor) or tensor.is_cuda, func
        name = func.overloadpacket.__name__
        if name not in self.SILENT:
            self.names.append(name)
        return out


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """Makes torch believe in a GPU, on which Triton's kernels do nothing but count."""
    from triton.runtime.interpreter import InterpretedFunction

    from glm_kernels import triton
    from glm_kernels.triton import attention, weight_only

    found = Launches()

    def kernel(self, grid):
        return lambda *arguments, **named: found.names.append(self.fn.__name__)

    monkeypatch.setattr(InterpretedFunction, "__getitem__", kernel)
    for module in (triton, attention, weight_only):
        monkeypatch.setattr(module, "device_of", lambda tensor: nullcontext())
        monkeypatch.setattr(module, "lookup", lambda op, *_: CONFIGS[op], raising=False)
    monkeypatch.setattr(attention, "num_programs", lambda device: 132)
    return found


LAUNCHES = {
    "glm-base": 13,
    "glm-130b": 17,
    "chatglm-6b": 19,
    "chatglm2-6b": 15,
    "glm-4-9b-0414": 17,
    "codegeex-13b": 13,
}
"""Most kernels of a layer: each costs a GPU a microsecond or two, however little it does."""
CONFIGS = {
    "attention_forward": {"BLOCK_M": 16},
    "weight_only_vector": {},
    "weight_only_matrix": {"BLOCK_M": 16, "BLOCK_N": 32},
}


def on_fake_gpu(model: Transformer, mode: FakeTensorMode) -> Transformer:
    """The model with all its tensors replaced by some without numbers."""

    def fake(tensor: Tensor) -> Tensor:
        with mode:
            return torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda"
            )

    for module in model.modules():
        for table in (module._parameters, module._buffers):
            table.update({k: v if v is None else fake(v.detach()) for k, v in table.items()})
        if isinstance(module, QuantizedWeight) and module.packed is not None:
            packed = {"levels": module.packed_levels, "scales": module.packed_scales}
            module.packed = replace(module.packed, **packed)
    return model


def launched(model: Transformer, rows: int, launches: Launches) -> list[str]:
    launches.names.clear()
    config, mode = model.config, FakeTensorMode()
    on_fake_gpu(model, mode)
    shape = (rows, 512, config.num_kv_heads, config.head_dim)
    with torch.no_grad(), mode, torch.device("cuda"):
        keys, values = ([torch.empty(shape)] * config.num_blocks for _ in range(2))
        inputs_6B = torch.empty(6, rows, dtype=torch.int64)
        with launches:
            out = static_step(model, inputs_6B, keys, values)
    assert out.shape == (rows, config.vocab_size)
    return list(launches.names)


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton's interpreter")
@pytest.mark.parametrize(("family", "most"), LAUNCHES.items())
def test_step_asks_nothing_of_the_host(family: str, most: int, launches: Launches) -> None:
    product = {1: "_matrix_vector", 3: "_matrix_matrix"}
    for rows in product:
        with use_backend("triton", "linear_weight_only"):  # packs, also without compiled kernels
            models = [quantized_model(family, num_layers=layers) for layers in (1, 2)]
        one, two = (Counter(launched(model, rows, launches)) for model in models)
        layer = two - one
        assert layer[product[rows]] == 4 and layer["forward"] == layer["combine"] == 1
        assert layer.total() <= most, layer
