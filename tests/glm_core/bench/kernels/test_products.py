"""Weight-only products: contenders, units and errors at tiny sizes."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from glm_core.bench.clock import stopwatch
from glm_core.bench.kernels import products
from glm_core.bench.kernels.product_peers import Peers, _kind
from glm_core.bench.kernels.products import FORMATS, Reading, num_copies, packed_copies
from glm_kernels import dequantize_packed
from glm_kernels.cpu import library

CPU = torch.device("cpu")


def test_contests_cover_every_shape_and_format_when_asked_for_all(tiny):
    made = list(products.contests(list(FORMATS), tiny, CPU, with_compile=False))
    assert len(made) == products.count(list(FORMATS), tiny) == 4 * 5
    assert {contest.shape for contest in made} == {
        *("1x128x48", "8x128x48", "512x128x48", "1x256x64", "8x256x64")  # 512x256x64 is too much
    }
    gemv = next(c for c in made if c.op == "linear_int4_g32" and c.shape.startswith("1x"))
    assert [side.name for side in gemv.ours] == ["15-bit activations"] and gemv.unit == "GB/s"
    assert [(p.name.partition(",")[0], str(p.goal)) for p in gemv.peers] == [
        *(("reading memory", ">= 0.88x"),) * 2,
        ("torch int4", "None"),
        ("bf16 linear", "None"),
    ]
    gemm = next(c for c in made if c.op == "linear_int8_rows" and c.shape.startswith("8x"))
    assert [side.name for side in gemm.ours] == ["15-bit activations", "8-bit activations"]
    names = ["torch int8, bf16 activations", "torch._int_mm", "bf16 linear", "fp32 linear"]
    assert [peer.name for peer in gemm.peers] == names and gemm.unit == "Gop/s"
    gemm.run(3, stopwatch(CPU), 1.0)
    assert all(side.rates[0] > 0 for side in gemm.ours)


def test_error_is_that_of_the_rounded_activations_when_compiled(tiny):
    if library.unavailable():
        pytest.skip(str(library.unavailable()))
    torch.manual_seed(0)
    made = products.contests(list(FORMATS), tiny, CPU, with_compile=False)
    errors = [side.error for contest in made for side in contest.ours if "15" in side.name]
    assert len(errors) == 20 and 1e-6 < max(errors) < 2e-4  # worst of seeds 0 to 4: 8e-5


def test_reason_is_given_when_scales_are_of_whole_rows(tiny):
    peers = Peers((128, 48), 1, CPU, with_compile=False)
    (int4, *_) = peers.contenders(torch.randn(1, 128), 4, None, None)
    assert int4.reason == "torch's int4 product has no scales of whole rows"


def test_reason_is_given_when_torch_has_no_such_product():
    peers = Peers((100, 50), 1, CPU, with_compile=False)  # 50 rows are no multiple of 16
    (int4, *_) = peers.contenders(torch.randn(1, 100), 4, 32, None)
    assert int4.reason


def test_copies_are_larger_than_the_caches_when_made(tiny):
    copies = packed_copies((256, 64), 4, 32, 1, CPU)
    assert sum(packed.nbytes for packed in copies) > 1 << 20
    assert len({packed.levels.data_ptr() for packed in copies}) == len(copies)
    first, second = (dequantize_packed(packed) for packed in copies[:2])
    assert torch.equal(first, second) and first.shape == (64, 256)
    assert num_copies(3 << 20, 8) == 3 and num_copies(9 << 20, 8) == 1


def test_reading_goes_through_all_memory_when_it_is_the_limit():
    by_product, by_sum = Reading(3, CPU).contenders()
    assert by_product.work * len(by_product.calls) >= 3 << 20
    assert float(by_sum.calls[0]()) == by_sum.work / 4 * 0.5
    assert by_product.is_limit and by_sum.is_limit


@pytest.mark.parametrize(
    ("name", "group", "kind"),
    [
        ("torch int4, bf16 activations", 32, "int4 32"),
        ("torch.compile int4", 128, "int4 128"),
        ("torch int8, bf16 activations", None, "int8"),
        ("torch._int_mm", 32, "int8"),
        ("bf16 linear", None, "bfloat16"),
        ("fp32 linear", None, "float32"),
    ],
)
def test_peers_share_weights_when_they_read_the_same(name, group, kind):
    assert _kind(name, group) == kind


def test_peers_take_what_they_get_when_it_is_on_a_gpu():
    """Shapes and dtypes by torch's own rules; the GPU is pretended."""
    device = torch.device("cuda")
    with FakeTensorMode():
        peers = Peers((4096, 13696), 1, device, with_compile=False)
        few, many = (torch.zeros(rows, 4096, device=device) for rows in (1, 64))
        one = peers.contenders(few, 4, 32, None)
        more = [*peers.contenders(many, 4, 128, 1.0), *peers.contenders(many, 8, None, 1.0)]
    assert [(peer.name, peer.reason) for peer in one] == [("torch int4", ""), ("bf16 linear", "")]
    assert one[0].work == 4096 * 13696 * (4 + 32 / 32) / 8 and str(one[0].goal) == ">= 1.2x"
    names = ["torch int4", "torch._int_mm", "bf16 linear"]
    assert [peer.name for peer in more] == [*names, "torch int8", *names[1:]]
    assert {peer.reason for peer in more} == {""}
