"""Choice of backends: automatic, explicit, by environment variable; messages; import cost."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

import glm_kernels
from glm_kernels import registry


@pytest.fixture
def scratch_op(monkeypatch):
    """Give a registry with one more op, `scratch`, and put everything back afterwards."""
    monkeypatch.setattr(registry, "_backends", dict(registry._backends))
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))
    monkeypatch.setattr(registry, "_resolved", {})
    monkeypatch.setattr(registry, "_warned", set())
    glm_kernels.register("scratch", "plain")(lambda: "plain")
    return "scratch"


def broken():
    return "no compiler was found"


def test_every_op_has_an_oracle_and_a_torch_backend():
    assert len(glm_kernels.registered_ops()) == 16
    for op in glm_kernels.registered_ops():
        assert {"reference", "torch"} <= set(glm_kernels.available_backends(op, "meta"))


def test_automatic_choice_takes_highest_priority_when_available(scratch_op):
    glm_kernels.register(scratch_op, "fast", devices={"cuda"}, priority=5)(lambda: "fast")
    assert glm_kernels.dispatch(scratch_op, "cuda")() == "fast"
    assert glm_kernels.dispatch(scratch_op, "cpu")() == "plain"


def test_backend_runs_on_other_devices_only_when_asked_for_by_name(scratch_op):
    glm_kernels.register(scratch_op, "fast", devices={"cuda"}, on_request={"cpu"}, priority=5)(
        lambda: "fast"
    )
    assert glm_kernels.dispatch(scratch_op, "cpu")() == "plain"
    assert glm_kernels.dispatch(scratch_op, "cpu", "fast")() == "fast"
    assert glm_kernels.dispatch(scratch_op, "cuda")() == "fast"
    with pytest.raises(ValueError, match="not available on 'mps': it runs on cuda only"):
        glm_kernels.dispatch(scratch_op, "mps", "fast")


def test_automatic_choice_warns_once_when_it_falls_back(scratch_op, caplog):
    glm_kernels.register(scratch_op, "fast", priority=5, unavailable=broken)(lambda: "fast")
    with caplog.at_level(logging.WARNING):
        for device in ("cpu", "cpu", "cuda"):
            assert glm_kernels.dispatch(scratch_op, device)() == "plain"
    assert [record.getMessage() for record in caplog.records] == [
        "scratch: falling back from backend 'fast': no compiler was found"
    ]


def test_explicit_choice_raises_when_backend_is_broken(scratch_op):
    glm_kernels.register(scratch_op, "fast", priority=5, unavailable=broken)(lambda: "fast")
    message = (
        "backend 'fast' of op 'scratch' is not available on 'cpu': no compiler was found. "
        "Available: plain. Choose one of these in GLM_KERNELS_BACKEND or use_backend"
    )
    with pytest.raises(ValueError, match=message):
        glm_kernels.dispatch(scratch_op, "cpu", "fast")
    with glm_kernels.use_backend("fast", scratch_op), pytest.raises(ValueError, match=message):
        glm_kernels.dispatch(scratch_op, "cpu")


def test_explicit_choice_raises_when_backend_is_for_other_devices():
    with pytest.raises(ValueError, match="'cpu' of op 'rms_norm' .* it runs on cpu only"):
        glm_kernels.dispatch("rms_norm", "cuda", "cpu")


def test_explicit_choice_raises_when_backend_is_unknown():
    message = "'fancy' of op 'gelu' .* no such backend is registered. Available: .*torch, reference"
    with glm_kernels.use_backend("fancy"), pytest.raises(ValueError, match=message):
        glm_kernels.gelu(torch.zeros(2), "tanh")


def test_dispatch_raises_when_op_is_unknown():
    with pytest.raises(ValueError, match="unknown op 'gleu'; glm_kernels has: add_layer_norm"):
        glm_kernels.dispatch("gleu", "cpu")


def test_use_backend_restores_the_choice_when_it_ends():
    before = glm_kernels.dispatch("swiglu", "cpu")
    with glm_kernels.use_backend("reference"):
        assert glm_kernels.dispatch("swiglu", "cpu") is glm_kernels.reference.swiglu
        with glm_kernels.use_backend("torch", "swiglu"):
            assert glm_kernels.dispatch("swiglu", "cpu") is not glm_kernels.reference.swiglu
            assert glm_kernels.dispatch("gelu", "cpu") is glm_kernels.reference.gelu
        with glm_kernels.use_backend("auto"):
            assert glm_kernels.dispatch("swiglu", "cpu") is before
        assert glm_kernels.dispatch("swiglu", "cpu") is glm_kernels.reference.swiglu
    assert glm_kernels.dispatch("swiglu", "cpu") is before


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("", {}),
        ("reference", {"*": "reference"}),
        (" gelu = torch , rms_norm=cpu,", {"gelu": "torch", "rms_norm": "cpu"}),
    ],
)
def test_environment_variable_is_understood_when_set(text, choices):
    assert registry._parse_choices(text) == choices


PROBE = """
import sys, torch
before = set(sys.modules)
import glm_kernels
heavy = {name.split(".")[0] for name in set(sys.modules) - before} - {"glm_kernels"}
print(glm_kernels.dispatch("gelu", "cpu") is glm_kernels.reference.gelu)
print(sorted(heavy - set(sys.stdlib_module_names)), "torch._dynamo" in sys.modules)
"""


def test_import_is_light_and_environment_obeyed_when_process_starts():
    output = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={"GLM_KERNELS_BACKEND": "reference", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.splitlines() == ["True", "[] False"]
