"""Sizes counted from a configuration, against models that exist and published figures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glm_core.model import Transformer
from glm_core.model.presets import preset
from glm_core.model.size import count_parameters, measure
from glm_core.quantize import Layout
from glm_core.testing import TINY_FAMILIES, tiny_config


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_every_weight_is_counted_once_when_model_has_no_storage(family: str) -> None:
    config = tiny_config(family)
    weights = sum(parameter.numel() for parameter in Transformer(config).parameters())
    assert count_parameters(config) == weights
    assert measure(config).num_bytes(element=4, layout=None) == 4 * weights


@pytest.mark.parametrize(
    ("name", "billions"),
    [("chatglm-6b", 6.2), ("chatglm2-6b", 6.2), ("glm-4-9b", 9.4), ("glm-130b", 130)],
)
def test_parameters_are_as_published_when_preset_is_released(name: str, billions: float) -> None:
    # counted: 6.17, 6.24, 9.40, 128.7
    assert count_parameters(preset(name)) / 1e9 == pytest.approx(billions, rel=0.015)


def test_quantized_bytes_are_those_of_rows_and_scales_when_counted_by_hand() -> None:
    size = measure(preset("chatglm2-6b"))
    # query-key-value, dense, and the two of the gated feed-forward
    matrices = [(4608, 4096), (4096, 4096), (2 * 13696, 4096), (4096, 13696)]
    rest = 2 * 65024 * 4096 + 4096 + 28 * (4608 + 2 * 4096)
    for bits in (8, 4):
        rows = sum(28 * (out * in_ * bits // 8 + 2 * out) for out, in_ in matrices)
        assert size.num_bytes(element=2, layout=Layout(bits)) == rows + 2 * rest
    assert size.largest_linear == 2 * 13696 * 4096


def test_compiler_stays_out_when_a_model_is_counted() -> None:
    """torch would import it, for two seconds, to draw weights that are not there."""
    code = (
        "import sys; from glm_core.model.presets import preset; "
        "from glm_core.model.size import measure; measure(preset('glm-4-9b')); "
        "print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
