"""Special tokens outside a vocabulary file: added_tokens.json, and ids without a name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ADDED_TOKENS = "added_tokens.json"


def read_json(path: Path) -> Any:
    """What the JSON file holds.

    Raises:
        ValueError: if it is missing or no JSON.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: copy it from the released model")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); copy it again") from error


def read_ids(path: Path) -> dict[str, int]:
    """A JSON object of names and ids, such as vocab.json.

    Raises:
        ValueError: if the file holds anything else, or one id twice.
    """
    table = read_json(path)
    if not isinstance(table, dict) or not all(type(token) is int for token in table.values()):
        raise ValueError(f"{path} must be a JSON object of tokens and their ids; copy it again")
    if len(set(table.values())) != len(table):
        raise ValueError(f"{path} gives one id to several tokens; copy it again")
    return table


def with_added(folder: Path, standard: Mapping[str, int]) -> tuple[dict[str, int], list[Path]]:
    """Special tokens of a folder, and the file that names them where there is one.

    Args:
        folder: may hold added_tokens.json, which decides about the names in it.
        standard: ids in the original code; those that the file left free stay.

    Raises:
        ValueError: if added_tokens.json is damaged.
    """
    path = folder / ADDED_TOKENS
    if not path.is_file():
        return dict(standard), []
    added = read_ids(path)
    taken = set(added.values())
    kept = {name: token for name, token in standard.items() if token not in taken}
    return {**kept, **added}, [path]


def gaps(specials: Mapping[str, int], first: int) -> frozenset[int]:
    """Ids from `first` up to the last special one that have no name."""
    return frozenset(range(first, max(specials.values(), default=0))) - set(specials.values())
