"""Ours, the formula and torch's own op compute the same: like is compared with like."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from glm_core.bench.clock import stopwatch
from glm_core.bench.kernels import attention, fused
from glm_core.bench.kernels.case import BACKWARD, COMPILED, FORWARD, outputs
from glm_core.bench.kernels.fused import Maker
from glm_core.bench.kernels.liger import LIGER
from glm_core.bench.kernels.run import FUSED
from glm_core.bench.kernels.sizes import CUDA

CPU = torch.device("cpu")


@pytest.mark.parametrize("op", FUSED)
def test_peers_compute_what_ours_does_when_inputs_are_the_same(tiny, op):
    torch.manual_seed(0)
    case = FUSED[op](Maker(tiny, torch.float32, CPU))
    leaves = [tensor for tensor in case.inputs if tensor.requires_grad]

    def results(function):
        out = outputs(function(*case.inputs))
        total = sum(o.square().sum() for o in out)
        return *out, *(torch.autograd.grad(total, leaves) if leaves else ())

    ours = results(case.ours)
    for name, function in {"formula": case.formula, **case.peers}.items():
        for mine, theirs in zip(ours, results(function), strict=True):
            # worst over all ops and seeds 0 to 4: 3e-6 of the largest value (modulate, gradient)
            scale = float(theirs.detach().abs().max())
            torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5 * scale, msg=name)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("op", ["attention_prefix", "attention_packed"])
def test_flex_computes_the_same_when_it_is_not_compiled(tiny, op, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    case = attention.CASES[op](Maker(tiny, torch.float32, CPU))
    inputs = [tensor.detach() for tensor in case.inputs]
    ours, flex = case.ours(*inputs), case.compiled[attention.FLEX](*inputs)
    torch.testing.assert_close(ours, flex, rtol=0, atol=2e-6)  # worst seen: 3e-7


def test_both_passes_are_measured_when_a_case_runs(tiny):
    case = fused.CASES["rms_norm"](Maker(tiny, torch.float32, CPU))
    contests = list(case.contests(with_compile=False))
    assert [contest.part for contest in contests] == [FORWARD, BACKWARD]
    for contest in contests:
        names = [peer.name for peer in contest.peers]
        assert names == ["formula", "torch", COMPILED]
        assert contest.peers[2].reason == "left out by --no-compile"
        contest.run(3, stopwatch(CPU), 1.0)
        assert all(len(side.seconds) == 3 for side in (*contest.ours, *contest.peers[:2]))
    assert contests[0].ours[0].code.startswith("cpu.")
    assert all(leaf.grad is None for leaf in case.inputs)


def test_backward_is_left_out_when_no_input_wants_a_gradient(tiny):
    for op in attention.FORWARD_ONLY:
        case = attention.CASES[op](Maker(tiny, torch.float32, CPU))
        assert [contest.part for contest in case.contests(with_compile=False)] == [FORWARD]


def test_dtype_is_that_of_the_inputs_when_it_is_bf16(tiny):
    for op, make in FUSED.items():
        case = make(Maker(tiny, torch.bfloat16, CPU))
        floats = [tensor for tensor in case.inputs if tensor.requires_grad]
        assert {tensor.dtype for tensor in floats} <= {torch.bfloat16}, op
        assert op in attention.FORWARD_ONLY or floats


def test_reason_is_given_when_torch_has_no_chunked_loss(tiny, monkeypatch):
    monkeypatch.delattr(torch.nn.functional, "linear_cross_entropy", raising=False)
    case = fused.CASES["cross_entropy"](Maker(tiny, torch.float32, CPU))
    assert "torch" not in case.peers and "linear_cross_entropy" in case.refused["torch"]


@pytest.mark.parametrize("op", [*fused.CASES, *attention.FORWARD_ONLY])
def test_peers_stay_on_the_gpu_when_inputs_are_there(op):
    """Shapes and devices by torch's own rules; the GPU is pretended."""
    with FakeTensorMode():
        case = FUSED[op](Maker(CUDA, torch.bfloat16, torch.device("cuda")))
        for name, function in {"formula": case.formula, **case.peers}.items():
            results = outputs(function(*case.inputs))
            assert {out.device.type for out in results} == {"cuda"}, name
    assert op in attention.FORWARD_ONLY or LIGER in {*case.refused, *case.peers}
