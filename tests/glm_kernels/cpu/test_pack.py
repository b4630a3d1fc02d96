"""Packing by the compiled part gives what PyTorch's operations give, byte for byte."""

from __future__ import annotations

import pytest
import torch

from glm_kernels import pack_weight
from glm_kernels.cpu import library, pack


@pytest.mark.parametrize("rows", [1, 16, 35])
@pytest.mark.parametrize(
    ("bits", "columns"),
    [(8, 3), (8, 32), (8, 63), (8, 64), (8, 130), (4, 2), (4, 64), (4, 126), (4, 128), (4, 322)],
)
def test_bytes_are_those_of_plain_operations(
    rows: int, bits: int, columns: int, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(columns)
    size = (rows + 2, columns * bits // 8)
    levels = torch.randint(-128, 128, size, generator=generator, dtype=torch.int8)[1:-1]
    scales = torch.ones(rows, dtype=torch.float16)
    found = pack_weight(levels, scales, bits=bits).levels
    turned = pack_weight(levels.T.contiguous().T, scales, bits=bits).levels
    monkeypatch.setattr(pack, "pack_levels", lambda *_: False)
    expected = pack_weight(levels, scales, bits=bits).levels
    assert torch.equal(found, expected) and torch.equal(turned, expected)


def test_nothing_is_done_when_there_is_no_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "unavailable", lambda: "the compiled part is not there")
    out = torch.full((1, 512), 7, dtype=torch.uint8)
    assert not pack.pack_levels(torch.zeros(1, 32, dtype=torch.int8), 8, out)
    assert out.eq(7).all()
