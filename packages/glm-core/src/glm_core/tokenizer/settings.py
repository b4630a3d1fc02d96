"""The JSON files beside a vocabulary: config.json and tokenizer_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glm_core.tokenizer.added import read_json


def read_settings(path: Path) -> dict[str, Any]:
    """What a JSON file of settings holds; nothing if it is not there.

    Raises:
        ValueError: if it is damaged, or no object.
    """
    if not path.is_file():
        return {}
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must be a JSON object of settings; copy it again")
    return settings
