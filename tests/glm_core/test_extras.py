from __future__ import annotations

import re
import sys

import pytest

from glm_core.errors import MissingExtraError
from glm_core.extras import require


def test_module_is_returned_when_it_is_installed():
    assert require("json.decoder", extra="serve") is sys.modules["json.decoder"]


def test_command_is_named_when_the_module_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # importing it now raises ModuleNotFoundError
    expected = re.escape('cogvlm needs timm: pip install -e ".[cogvlm]"')
    with pytest.raises(MissingExtraError, match=expected):
        require("timm", extra="cogvlm")
    with pytest.raises(MissingExtraError, match=expected):
        require("timm.models", extra="cogvlm")


def test_distribution_is_named_when_it_differs_from_the_module():
    with pytest.raises(MissingExtraError, match="relay-diffusion needs open-clip-torch: pip"):
        require("open_clip_not_there", extra="relay-diffusion", package="open-clip-torch")


def test_error_is_kept_when_the_module_itself_is_broken(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import something_it_forgot\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_forgot") as caught:
        require("broken_extra", extra="serve")
    assert not isinstance(caught.value, MissingExtraError)
