from __future__ import annotations

import hashlib

import pytest
import torch

from glm_core.checkpoint.files import read_safetensors
from glm_core.checkpoint.pretrained import EMBEDDED
from glm_core.quantize.tensors import dequantize_tensors, quantize_tensors


def test_names_and_vectors_come_back_when_tensors_are_dequantized() -> None:
    tensors = {"a.weight": torch.randn(4, 8), "a.bias": torch.randn(4), "ids": torch.arange(3)}
    stored = quantize_tensors(tensors)
    assert stored.keys() == tensors.keys() | {"a.weight_scale"}
    assert stored["a.bias"].dtype == torch.float16
    back = dequantize_tensors(stored, torch.float32)
    assert back.keys() == tensors.keys()
    torch.testing.assert_close(back["a.weight"], tensors["a.weight"], atol=0.02, rtol=0)
    assert torch.equal(back["ids"], tensors["ids"])


def test_shipped_model_has_its_values_when_loaded() -> None:
    """Each value is level * scale, and the shipped file has not changed its meaning."""
    stored = read_safetensors(EMBEDDED["nano-text"] / "model.safetensors", "install again")
    values = dequantize_tensors(stored, torch.float32)
    for name, value in values.items():
        if name + "_scale" in stored:
            exact = stored[name].double() * stored[name + "_scale"].double()[:, None]
            assert torch.equal(value.double(), exact)
        else:
            assert torch.equal(value, stored[name])


@pytest.mark.parametrize(
    ("dtype", "digest"),
    [
        (torch.float32, "56c732ef073a97c699725a4d2fcc404815f269d2d66904c99b979d83c81d5b87"),
        (torch.float16, "13f67012a687d4e7591e1c9c967f7f2e7aab11847f3f1a5b958b570e18b830a0"),
    ],
)
def test_shipped_values_have_their_digest_when_loaded(dtype: torch.dtype, digest: str) -> None:
    """Taken when the model was shipped; changes only when it is trained anew."""
    stored = read_safetensors(EMBEDDED["nano-text"] / "model.safetensors", "install again")
    values = dequantize_tensors(stored, dtype)
    found = hashlib.sha256()
    for name in sorted(values):
        found.update(values[name].to(dtype).contiguous().view(torch.uint8).numpy().tobytes())
    assert found.hexdigest() == digest
