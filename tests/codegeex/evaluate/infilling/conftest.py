"""Files with holes of our own."""

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "infilling_data", Path(__file__).with_name("data.py")
)
data = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(data)


@pytest.fixture
def humaneval_file(tmp_path):
    """Holes in the format of human-eval-infilling: a line, two lines, a span."""
    return data.write(tmp_path / "humaneval.jsonl", data.HUMANEVAL)


@pytest.fixture
def safim_files(tmp_path):
    """Files in SAFIM's format, by kind of hole."""
    return {
        kind: data.write(tmp_path / f"{kind}_completion.jsonl", rows)
        for kind, rows in data.SAFIM.items()
    }
