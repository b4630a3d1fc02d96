"""Where `glm bench profile` puts an operator's time."""

import pytest

from glm_core.bench.profile import shares


def test_shares_add_up_to_one_and_go_by_operator():
    found = shares(
        {
            "aten::mm": 3.0,
            "aten::addmm_": 2.0,
            "aten::_scaled_dot_product_flash_attention_for_cpu": 1.0,
            "aten::_scaled_dot_product_flash_attention_for_cpu_backward": 1.0,
            "aten::mul": 2.0,
            "aten::addmv_": 1.0,
        }
    )
    assert found == pytest.approx({"matrix_products": 0.5, "attention_kernel": 0.2, "rest": 0.3})
