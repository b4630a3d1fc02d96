"""The contenders of `glm bench decode` that run in our environment, at a tiny size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from glm_core.bench import decode_workers, random_weights
from glm_core.bench.decode import EIGHT_BIT
from glm_core.model import TransformerConfig
from glm_core.testing import tiny_config

JOB: dict[str, Any] = {
    "shape": "tiny",
    "layers": 2,
    "batch": 2,
    "prompt": 0,
    "tokens": 3,
    "threads": 1,
    "bits": 4,
}


def config_of(shape: str, layers: int) -> TransformerConfig:
    sizes = {
        "head_dim": 16,
        "hidden_size": 64,
        "ffn_hidden_size": 96,
        "rotary_dim": 8,
        "vocab_size": 64,
    }
    return tiny_config("chatglm2-6b", num_layers=layers, **sizes)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shape is a tiny one."""
    monkeypatch.setattr(decode_workers, "shape_config", config_of)
    monkeypatch.setattr(decode_workers, "READ_BYTES", 1 << 20)


@pytest.mark.parametrize("prompt", [0, 40])
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_ours_runs_when_weights_have_these_bits(bits: int, prompt: int) -> None:
    about, run = decode_workers.ours({**JOB, "bits": bits, "prompt": prompt})
    matrices = 2 * (64 * (64 + 64) + 64 * 64 + 3 * 64 * 96) + 64 * 64
    expected = matrices * {4: 4.5, 8: 8.0, 32: 32.0}[bits] / 8
    # norms, biases, and rows that are padded to blocks of 16
    assert expected < about["bytes"] < 1.15 * expected + 6000
    assert ("15 bits" in about["activations"]) == (bits != 32)
    assert run() > 0


def test_activations_are_rounded_when_ours_is_the_8_bit_variant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = []
    monkeypatch.setattr(decode_workers, "rounds_of", lambda model, job: models.append(model))
    about, _ = decode_workers.ours({**JOB, "prompt": 40, "variant": EIGHT_BIT})
    assert about["activations"] == "bf16; 8 bits in products"
    assert models[0].layers[0].attention.query_key_value.prompt_activation_bits == 8


@pytest.mark.parametrize("prompt", [0, 40])
def test_peers_run_when_they_are_there(prompt: int) -> None:
    if not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
        pytest.skip("this torch has no int4 product for CPUs")
    about, run = decode_workers.torch_int4({**JOB, "prompt": prompt})
    assert "int4" in about["weights"] and run() > 0
    pytest.importorskip("transformers")
    about, run = decode_workers.transformers({**JOB, "prompt": prompt})
    assert about["weights"] == "bf16" and run() > 0


def test_a_whole_prompt_is_read_when_the_job_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = decode_workers.DecodingBatch.__init__

    def noting(self: Any, model: Any, starts: Any, capacity: int) -> None:
        read.append([len(start.input_ids) for start in starts])
        original(self, model, starts, capacity)

    monkeypatch.setattr(decode_workers.DecodingBatch, "__init__", noting)
    _, run = decode_workers.ours({**JOB, "prompt": 40})
    run()
    assert read == [[40, 40]]


def test_reading_is_measured_in_gigabytes() -> None:
    about, run = decode_workers.read_memory(JOB)
    assert about["bytes"] == 1 << 20 and 0.01 < run() < 1e4


def test_random_matrices_have_every_level() -> None:
    levels = random_weights.random_bytes((512, 512), torch.uint8)
    assert len(levels.unique()) == 256
