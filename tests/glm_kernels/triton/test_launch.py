"""When Triton can be used, and what is said when it cannot."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace

import pytest
import torch

import glm_kernels
from glm_kernels import registry
from glm_kernels.triton import _MODULES, launch


@pytest.fixture
def reason(monkeypatch):
    """Return a function that asks anew, without the interpreter."""
    monkeypatch.setattr(launch, "INTERPRETED", False)
    yield launch.unavailable.__wrapped__
    launch.unavailable.cache_clear()


def test_missing_triton_is_named_with_its_remedy(reason, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "triton" else find_spec(name)
    )
    assert reason() == "triton is not installed: pip install triton"


def test_missing_gpu_is_named_with_the_interpreter(reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "there is no GPU (TRITON_INTERPRET=1 in the environment" in reason()


def test_old_gpu_is_refused_with_both_capabilities(reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.version, "hip", None)
    assert reason() == "the GPU is of compute capability (7, 5); the kernels need (8, 0) or later"


def test_automatic_choice_falls_back_with_a_warning_when_triton_is_missing(monkeypatch, caplog):
    entry = registry._backends["rms_norm"]["triton"]
    reason = "triton is not installed: pip install triton"
    broken = replace(entry, unavailable=lambda: reason)
    monkeypatch.setitem(registry._backends["rms_norm"], "triton", broken)
    monkeypatch.setattr(registry, "_resolved", {})
    monkeypatch.setattr(registry, "_warned", set())
    with caplog.at_level(logging.WARNING):
        assert glm_kernels.dispatch("rms_norm", "cuda") is registry._functions["rms_norm", "torch"]
    assert [record.getMessage() for record in caplog.records] == [
        "rms_norm: falling back from backend 'triton': triton is not installed: pip install triton"
    ]
    registry._resolved.clear()


def test_gpu_tensors_get_triton_and_cpu_tensors_do_not():
    for op in _MODULES:
        kernels = registry._backends[op]["triton"]
        assert max(registry._backends[op].values(), key=lambda entry: entry.priority) is kernels
        assert kernels.devices == {"cuda"}
        assert glm_kernels.dispatch(op, "cpu") is not registry._functions[op, "triton"]


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (2, 2), (3, 4), (4096, 4096), (4097, 8192)])
def test_blocks_are_powers_of_two(size, expected):
    assert launch.power_of_two(size) == expected
