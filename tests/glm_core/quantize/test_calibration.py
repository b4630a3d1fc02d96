"""The walk through the layers against hooks on the whole model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glm_core.checkpoint.released import open_checkpoint
from glm_core.checkpoint.weight_reader import WeightReader
from glm_core.data.batch import collate
from glm_core.model import Transformer
from glm_core.quantize import QuantizeConfig, QuantizedMatrix, quantize_matrix
from glm_core.quantize.calibration import LayerWalk, calibration_samples
from glm_core.quantize.quantize import layouts_of
from glm_core.testing import TINY_FAMILIES
from glm_core.tokenizer import ByteBPETokenizer
from glm_kernels import use_backend

from .conftest import TEXT

Save = Callable[..., tuple[Transformer, Path]]
CONFIG = QuantizeConfig(bits=8, head=True)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_inputs_are_those_of_the_quantized_model_so_far(
    save: Save, tokenizer: ByteBPETokenizer, family: str
) -> None:
    """Each matrix sees what the model gives it whose earlier matrices are rounded already."""
    model, folder = save(family)
    documents = [np.array(tokenizer.encode(TEXT * 2))]
    samples = calibration_samples(model.config, tokenizer, documents, 5, 40, seed=1)
    layouts = layouts_of(model, CONFIG)
    reader = WeightReader(open_checkpoint(folder), torch.float32, {}, torch.device("cpu"))
    seen: list[str] = []

    def quantizer(name: str, weight: Tensor, mean_II: Tensor) -> QuantizedMatrix:
        module = name.removesuffix(".weight")
        seen.append(module)
        expected = mean_by_hook(model, module, samples)
        # worst measured 7.2e-7
        assert (mean_II - expected).abs().max() <= 1e-5 * expected.abs().max(), name
        assert torch.equal(weight, model.get_parameter(name))
        matrix = quantize_matrix(weight, layouts[module])
        with torch.no_grad():
            model.get_parameter(name).copy_(matrix.dequantize())
        return matrix

    with use_backend("torch", "linear_weight_only"):
        LayerWalk(reader, layouts, samples, tokenizer.pad_id).run(quantizer)
    assert sorted(seen) == sorted(layouts)


def mean_by_hook(model: Transformer, name: str, samples: list) -> Tensor:
    """The mean of x x^T over all inputs of a module, one sample at a time, in fp64."""
    inputs: list[Tensor] = []

    def keep(_: nn.Module, x: tuple[Tensor, ...]) -> None:
        inputs.append(x[0].detach().flatten(0, -2).double())

    is_head = name in ("word_embeddings", "output_layer")
    hook = None if is_head else model.get_submodule(name).register_forward_pre_hook(keep)
    with torch.no_grad():
        for sample in samples:
            batch = collate([sample], len(sample), 0)
            hidden = model(batch.input_ids, batch.position_ids, batch.mask)
            if is_head:
                keep(model, (hidden,))
    if hook is not None:
        hook.remove()
    x = torch.cat(inputs)
    return (x.t() @ x / len(x)).float()


def test_samples_are_whole_windows_and_drawn_by_the_seed(
    save: Save, tokenizer: ByteBPETokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    config = save()[0].config
    documents = [np.array(tokenizer.encode(TEXT * 8))]
    draw = [calibration_samples(config, tokenizer, documents, 4, 40, seed) for seed in (0, 0, 1)]
    ids = [[sample.input_ids.tolist() for sample in samples] for samples in draw]
    assert ids[0] == ids[1] != ids[2] and len(ids[0]) == 4
    assert len(set(map(len, ids[0]))) == 1
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        few = calibration_samples(config, tokenizer, documents, 1000, 40, 0)
    assert "1000 were asked for: a longer text" in caplog.text and few
    with pytest.raises(ValueError, match="the calibration text is empty"):
        calibration_samples(config, tokenizer, [], 4, 40, 0)
