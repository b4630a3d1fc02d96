"""Packing of quantized weights: bytes in their order, values back, and what is refused."""

from __future__ import annotations

import pytest
import torch

from glm_kernels import dequantize_packed, linear_weight_only, pack_weight
from glm_kernels.memory import HUGE_PAGE, empty_on_huge_pages


def halves(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.float16)


def levels(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int8)


def test_bytes_are_interleaved_when_packed():
    stored = torch.arange(20 * 32).view(20, 32).to(torch.int8)
    packed = pack_weight(stored, halves(20), bits=8)
    assert packed.levels.shape == (2, 512)
    first = packed.levels[0].view(8, 16, 4)  # vectors, rows, bytes
    assert first[3, 5].view(torch.int8).tolist() == stored[5, 12:16].tolist()
    assert packed.levels[1].view(8, 16, 4)[:, 4:].eq(0).all()
    assert packed.nbytes == 2 * 512 + 32 * 2


def test_nibbles_are_paired_four_columns_apart_when_packed():
    columns = torch.arange(-8, 8).repeat(2)  # of the only row; level + 8 is 0..15, 0..15
    stored = ((columns[0::2] << 4) | (columns[1::2] & 15)).to(torch.int8)[None]
    vectors = pack_weight(stored, halves(1), bits=4).levels.view(4, 16, 4)
    assert vectors[0, 0].tolist() == [0x40, 0x51, 0x62, 0x73]
    assert vectors[1, 0].tolist() == [0xC8, 0xD9, 0xEA, 0xFB]
    assert vectors[0, 1].tolist() == [0x88] * 4  # the padding is level 0


def test_values_come_back_when_dequantized():
    stored = torch.tensor([[0x78 - 256 * 0, -0x80]], dtype=torch.int8)  # 7, -8, -8, 0
    packed = pack_weight(stored, torch.tensor([0.5]).half(), bits=4)
    assert dequantize_packed(packed).tolist() == [[3.5, -4.0, -4.0, 0.0]]
    shifted = pack_weight(
        stored, torch.tensor([0.5]).half(), torch.tensor([-8], dtype=torch.int8), bits=4
    )
    assert dequantize_packed(shifted, torch.bfloat16).tolist() == [[7.5, 0.0, 0.0, 4.0]]


@pytest.mark.parametrize("rows", [1, 16, 17, 50])
@pytest.mark.parametrize(("bits", "columns"), [(8, 1), (8, 32), (8, 77), (4, 2), (4, 96)])
def test_levels_come_back_when_packed_and_dequantized(rows, bits, columns):
    generator = torch.Generator().manual_seed(rows)
    top = 1 << (bits - 1)
    whole = torch.randint(-top, top, (rows, columns), generator=generator, dtype=torch.int8)
    stored = whole if bits == 8 else (whole[:, 0::2] << 4) | (whole[:, 1::2] & 15)
    packed = pack_weight(stored, halves(rows), bits=bits)
    assert torch.equal(dequantize_packed(packed), whole.float())


def test_some_blocks_come_back_when_asked_for():
    stored = torch.arange(40 * 32).view(40, 32).to(torch.int8)
    packed = pack_weight(stored, halves(40), bits=8)
    assert torch.equal(dequantize_packed(packed, blocks=slice(1, 3)), stored[16:].float())


REFUSED = [
    (levels(4, 48), halves(4, 1), None, 8, 32, "48 input features cannot have groups of 32"),
    (levels(4, 32), halves(4, 1), None, 8, 48, "group is 48: it can be 32, 64, 128, or None"),
    (levels(4, 32), halves(4), None, 6, None, "bits is 6: a packed weight has 8 or 4"),
    (levels(4, 32), halves(4), None, 8, 32, r"scales are .* of shape \[4\].*of shape \[4, 1\]"),
    (levels(4, 32), halves(4).float(), None, 8, None, "scales are torch.float32"),
    (levels(4, 32), halves(4), levels(3), 8, None, r"zeros are torch.int8 of shape \[3\]"),
    (levels(4, 32).float(), halves(4), None, 8, None, "levels are torch.float32"),
    (levels(0, 32), halves(0), None, 8, None, r"shape \[0, 32\].*not empty"),
    (levels(4, 32), halves(4) / 0, None, 8, None, "a scale of row 0 is not finite"),
]


@pytest.mark.parametrize(("stored", "scales", "zeros", "bits", "group", "message"), REFUSED)
def test_weight_is_refused_when_its_parts_do_not_fit(stored, scales, zeros, bits, group, message):
    with pytest.raises(ValueError, match=message):
        pack_weight(stored, scales, zeros, bits=bits, group=group)


def test_call_is_refused_when_arguments_do_not_fit():
    packed = pack_weight(levels(4, 32), halves(4), bits=8)
    x = torch.zeros(2, 32)
    for bad, message in (
        (torch.zeros(2, 31), r"x is torch.float32 of shape \[2, 31\].* 32 input features"),
        (torch.zeros(2, 32, dtype=torch.int64), "x must be floating point"),
        (torch.zeros(2, 32, device="meta"), "x is on meta but the packed weight is on cpu"),
    ):
        with pytest.raises(ValueError, match=message):
            linear_weight_only(bad, packed)
    with pytest.raises(ValueError, match=r"bias is torch.float32 of shape \[5\]"):
        linear_weight_only(x, packed, torch.zeros(5))
    with pytest.raises(ValueError, match="bias is torch.bfloat16"):
        linear_weight_only(x, packed, torch.zeros(4, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="activation_bits is 16: it can be 15 or 8"):
        linear_weight_only(x, packed, activation_bits=16)


def test_large_tensor_begins_at_a_huge_page_when_made():
    large = empty_on_huge_pages((3, HUGE_PAGE // 2), torch.int16)
    assert large.shape == (3, HUGE_PAGE // 2) and large.dtype == torch.int16
    assert large.data_ptr() % HUGE_PAGE == 0
    assert empty_on_huge_pages((3, 5), torch.float32).shape == (3, 5)
