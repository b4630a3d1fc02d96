"""Fixtures shared by the tests of attention and of the model."""

import pytest
from torch.nn.attention import flex_attention


@pytest.fixture
def untraced_flex(monkeypatch):
    """Lets flex_attention run op by op: tracing each new mask takes it a third of a second."""
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
