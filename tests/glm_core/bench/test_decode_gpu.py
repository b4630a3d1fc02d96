"""The contenders of a GPU, at a tiny size; without one, on the CPU and without graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from glm_core.bench import decode_gpu, decode_workers
from glm_core.infer.graph_decode import graph_decoder
from glm_core.model import TransformerConfig
from glm_core.testing import tiny_config

JOB: dict[str, Any] = {
    "shape": "tiny",
    "layers": 2,
    "batch": 2,
    "tokens": 3,
    "threads": 1,
    "bits": 4,
    "device": "cuda",
}
MATRICES = 2 * (128 * (128 + 128) + 128 * 128 + 3 * 128 * 256) + 128 * 128


def config_of(shape: str, layers: int) -> TransformerConfig:
    return tiny_config(
        "chatglm2-6b", num_layers=layers, head_dim=32, ffn_hidden_size=256, vocab_size=128
    )


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shape is a tiny one, and the CPU stands in for a GPU that is not there."""
    for module in (decode_gpu, decode_workers):
        monkeypatch.setattr(module, "shape_config", config_of)
    monkeypatch.setattr(decode_gpu, "READ_BYTES", 1 << 20)
    if torch.cuda.is_available():
        return
    monkeypatch.setattr(decode_gpu, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(decode_gpu, "COMPILER", "aot_eager")
    monkeypatch.setattr(decode_gpu, "capture_graph", as_it_is)
    monkeypatch.setattr(decode_gpu, "graph_decoder", lambda model: graph_decoder(model, as_it_is))
    monkeypatch.setattr(decode_gpu, "Int4Linear", decode_workers.TorchInt4Linear)


def as_it_is(step, model):
    return step


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_ours_runs_when_weights_have_these_bits(bits: int) -> None:
    about, run = decode_gpu.ours({**JOB, "bits": bits})
    expected = MATRICES * {4: 4.5, 8: 8.0, 32: 16.0}[bits] / 8
    assert expected < about["bytes"] < 1.1 * expected + 6000
    assert about["weights"] == {4: "int4 groups of 32", 8: "int8 rows", 32: "bf16"}[bits]
    assert run() > 0 and run() > 0


@pytest.mark.parametrize(("name", "bits"), [("compiled-int4", 5.0), ("compiled-bf16", 16.0)])
def test_peer_is_compiled_once_when_rounds_follow(name: str, bits: float) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    about, run = decode_workers.runners("cuda")[name](JOB)
    assert run() > 0 and run() > 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert MATRICES * bits / 8 <= about["bytes"] < 1.1 * MATRICES * bits / 8 + 6000


def test_bandwidth_is_that_of_the_faster_way() -> None:
    about, run = decode_gpu.read_memory(JOB)
    assert about["bytes"] == 1 << 20
    assert 0.01 < run() < 1e5


def test_devices_have_their_own_contenders() -> None:
    assert set(decode_workers.runners("cpu")) == {"ours", "read", "torch-int4", "transformers"}
    assert set(decode_workers.runners("cuda")) == {"ours", "read", "compiled-int4", "compiled-bf16"}
