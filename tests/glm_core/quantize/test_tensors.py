from __future__ import annotations

import hashlib

import pytest
import torch

from glm_core.checkpoint.files import read_safetensors
from glm_core.checkpoint.pretrained import EMBEDDED
from glm_core.checkpoint.released import open_checkpoint
from glm_core.quantize.rows import dequantize_rows
from glm_core.quantize.tensors import quantize_tensors


def test_matrices_become_rows_and_vectors_fp16_when_tensors_are_quantized() -> None:
    tensors = {"a.weight": torch.randn(4, 8), "a.bias": torch.randn(4), "ids": torch.arange(3)}
    stored = quantize_tensors(tensors)
    assert stored.keys() == tensors.keys() | {"a.weight_scale"}
    assert stored["a.bias"].dtype == torch.float16
    back = dequantize_rows(stored["a.weight"], stored["a.weight_scale"], 8, torch.float32)
    torch.testing.assert_close(back, tensors["a.weight"], atol=0.02, rtol=0)
    assert torch.equal(stored["ids"], tensors["ids"])


def test_shipped_model_has_its_values_when_loaded() -> None:
    """Each value is level * scale, and the shipped file has not changed its meaning."""
    stored = read_safetensors(EMBEDDED["nano-text"] / "model.safetensors", "install again")
    shipped = open_checkpoint(EMBEDDED["nano-text"])
    for name in shipped.names():
        value = shipped.read(name, torch.float32)
        if name + "_scale" in stored:
            exact = stored[name].double() * stored[name + "_scale"].double()[:, None]
            assert torch.equal(value.double(), exact)
        else:
            assert torch.equal(value, stored[name].float())


@pytest.mark.parametrize(
    ("dtype", "digest"),
    [
        (torch.float32, "56c732ef073a97c699725a4d2fcc404815f269d2d66904c99b979d83c81d5b87"),
        (torch.float16, "13f67012a687d4e7591e1c9c967f7f2e7aab11847f3f1a5b958b570e18b830a0"),
    ],
)
def test_shipped_values_have_their_digest_when_loaded(dtype: torch.dtype, digest: str) -> None:
    """Taken when the model was shipped; changes only when it is trained anew."""
    shipped = open_checkpoint(EMBEDDED["nano-text"])
    found = hashlib.sha256()
    for name in sorted(shipped.names()):
        found.update(shipped.read(name, dtype).view(torch.uint8).numpy().tobytes())
    assert found.hexdigest() == digest
