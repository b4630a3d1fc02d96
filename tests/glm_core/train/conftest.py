from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load_tiny_run() -> ModuleType:
    path = Path(__file__).with_name("tiny_run.py")
    spec = importlib.util.spec_from_file_location("tiny_run", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_run"] = module
    spec.loader.exec_module(module)
    return module


_TINY_RUN = _load_tiny_run()


@pytest.fixture
def tiny() -> ModuleType:
    """The tiny task and its trainer."""
    return _TINY_RUN
