"""A tiny CodeGeeX-13B in the released layout: 64 wide, three layers and the top-query layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from glm_core.checkpoint.released import open_checkpoint
from glm_core.model import Transformer

from .codegeex_oracle import random_state

HEADS = 8


@pytest.fixture(scope="session")
def state() -> dict[str, Any]:
    """The released state dict, in fp32."""
    return random_state()


@pytest.fixture(scope="session")
def folder(state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state dict as it is released, in one pickled file."""
    folder = tmp_path_factory.mktemp("codegeex_13b")
    torch.save({"module": state}, folder / "codegeex_13b.pt")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}))
    return folder


@pytest.fixture(scope="session")
def load(folder: Path) -> Callable[..., Transformer]:
    """Loads that model through its format; takes a dtype and changes to its config."""

    def read(dtype: torch.dtype = torch.float32, **changes: Any) -> Transformer:
        checkpoint = open_checkpoint(folder / "codegeex_13b.pt")
        model = Transformer(replace(checkpoint.config, **changes))
        model.load_state_dict({name: checkpoint.read(name) for name in checkpoint.names()})
        return model.to(dtype).eval()

    return read
