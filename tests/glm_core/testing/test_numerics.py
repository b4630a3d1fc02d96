"""The error that tests compare by."""

import logging

import numpy as np
import pytest
import torch

from glm_core.testing import assert_relative, relative_error


def test_error_is_relative_to_the_largest_entry():
    assert relative_error(torch.tensor([1.0, 4.5]), np.array([1.0, 4.0])) == 0.125


def test_error_is_absolute_when_all_zeros_are_expected():
    assert relative_error(np.array([0.5, -0.25]), np.zeros(2)) == 0.5


def test_error_is_zero_when_empty():
    assert relative_error(torch.zeros(0, 3), torch.zeros(0, 3)) == 0.0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"actual has shape \(2,\), expected \(1, 2\)"):
        relative_error(torch.zeros(2), torch.zeros(1, 2))


def test_bfloat16_with_gradient_is_compared():
    actual = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    assert relative_error(actual, torch.ones(3)) == 0.0


def test_worst_entry_is_named_when_the_error_is_too_large():
    message = (
        r"logits: relative error 5\.00e-01 exceeds 1\.0e-03; worst at \(1, 0\): .*3\.0.*, "
        r"expected .*2\.0"
    )
    with pytest.raises(AssertionError, match=message):
        assert_relative(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [2.0]]), 1e-3, "logits")


def test_nan_never_passes():
    with pytest.raises(AssertionError, match="relative error nan"):
        assert_relative(torch.tensor([1.0, float("nan")]), torch.ones(2), 1e9)


def test_measured_error_is_returned_and_logged(caplog):
    with caplog.at_level(logging.INFO, logger="glm_core.testing.numerics"):
        assert assert_relative(torch.tensor([2.5]), torch.tensor([2.0]), 0.3, "x") == 0.25
    assert caplog.messages == ["x: relative error 2.50e-01 (tolerance 3.0e-01)"]
