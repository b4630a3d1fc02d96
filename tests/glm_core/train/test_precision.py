from __future__ import annotations

import pytest
import torch

from glm_core.train.precision import (
    LossScaler,
    autocast,
    built_in_precision,
    resolve_device,
    resolve_precision,
)
from glm_core.train.trainer_config import Precision
from glm_kernels.measured import Table, use_table

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"),
    [
        (True, False, Precision.bf16),
        (False, True, Precision.bf16),
        (False, False, Precision.fp32),
    ],
)
def test_bf16_is_chosen_when_cpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, expected: Precision
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert resolve_precision(Precision.auto, CPU) is expected
    assert resolve_precision(Precision.fp16, CPU) is Precision.fp16


@pytest.mark.parametrize("fastest", [Precision.fp32, Precision.bf16])
def test_measured_precision_is_chosen_whatever_the_cpu_has(fastest: Precision) -> None:
    with use_table(Table(rankings={"precision": {"training": [fastest.value]}})):
        assert resolve_precision(Precision.auto, CPU) is fastest
        assert resolve_precision(Precision.fp16, CPU) is Precision.fp16
    with use_table(Table(rankings={"precision": {"training": ["fp8"]}})):
        assert resolve_precision(Precision.auto, CPU) is built_in_precision(CPU)


@pytest.mark.parametrize(("bf16", "expected"), [(True, Precision.bf16), (False, Precision.fp16)])
def test_bf16_is_chosen_when_gpu_has_it(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: Precision
) -> None:
    # torch answers True for any GPU when emulation counts
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: bf16 or including_emulation,
    )
    assert resolve_precision(Precision.auto, torch.device("cuda")) is expected


def test_products_are_low_precision_when_autocast() -> None:
    x = torch.ones(2, 2)
    for precision, dtype in ((Precision.bf16, torch.bfloat16), (Precision.fp32, torch.float32)):
        with autocast(precision, CPU):
            assert (x @ x).dtype == dtype


def test_error_names_device_when_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    with pytest.raises(ValueError, match="trainer.device is 'cuda', but torch sees no CUDA"):
        resolve_device("cuda")
    with pytest.raises(ValueError, match="trainer.device is 'gpu'; use auto, cpu or cuda"):
        resolve_device("gpu")


def feed(scaler: LossScaler, overflows: str) -> list[float]:
    """Scale after each step; "x" is an overflow."""
    scales = []
    for mark in overflows:
        scaler.update(torch.tensor(float(mark == "x")))
        scales.append(scaler.scale.item())
    return scales


def test_scale_halves_when_hysteresis_is_used_up() -> None:
    scaler = LossScaler(CPU, enabled=True, initial_scale=64, growth_window=3, hysteresis=2)
    assert feed(scaler, "x.xxx") == [64, 64, 32, 16, 8]


def test_scale_doubles_and_hysteresis_returns_when_window_is_good() -> None:
    scaler = LossScaler(CPU, enabled=True, initial_scale=64, growth_window=3, hysteresis=2)
    assert feed(scaler, "xx...x.x") == [64, 32, 32, 32, 64, 64, 64, 32]


def test_scale_goes_on_when_state_is_restored() -> None:
    options = {"enabled": True, "initial_scale": 64.0, "growth_window": 3, "hysteresis": 2}
    whole, first, second = (LossScaler(CPU, **options) for _ in range(3))
    feed(first, "x.")
    second.load_state_dict(first.state_dict())
    assert feed(whole, "x.x...")[2:] == feed(second, "x...")


def test_scale_is_one_when_disabled() -> None:
    scaler = LossScaler(CPU, enabled=False)
    assert feed(scaler, "xx") == [1, 1] and scaler.state_dict() == {}
