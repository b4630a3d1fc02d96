"""Documents inside .jsonl files: the fields that data sets of code have, and prompts with code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

CODE_FIELDS = ("code", "content", "text")
ANSWER_FIELDS = ("code", "completion", "response", "canonical_solution", "output")
REPOSITORY_FIELDS = ("repo", "repository", "repo_name", "repository_name", "max_stars_repo_name")
PATH_FIELDS = ("path", "file_path", "filepath", "max_stars_repo_path")
LANGUAGE_FIELDS = ("language", "lang")
LICENCE_FIELDS = ("licence", "license", "licenses")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One document of a .jsonl file."""

    text: str
    prompt: str = ""
    """What stands before the text and is not learnt."""
    repository: str = ""
    path: str = ""
    language: str = ""
    licence: str = ""


def read_record(line: bytes, place: str) -> Record:
    """The document on one line.

    Args:
        place: file and line, for errors.

    Raises:
        ValueError: naming the place, for a line that is no object with code in it.
    """
    try:
        fields = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not UTF-8: convert the file, or remove the line") from error
    except ValueError as error:
        told = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise ValueError(f"{place} is not valid JSON ({told}): fix or remove the line") from error
    if not isinstance(fields, dict):
        raise ValueError(
            f'{place} is a {type(fields).__name__}, not an object: write {{"code": ...}} on each '
            "line"
        )
    has_prompt = "prompt" in fields
    name = next(
        (name for name in (ANSWER_FIELDS if has_prompt else CODE_FIELDS) if name in fields), ""
    )
    if not name:
        wanted = " or ".join(ANSWER_FIELDS[:2] if has_prompt else CODE_FIELDS[:2])
        raise ValueError(
            f"{place} has no field {wanted} (it has {', '.join(fields) or 'none'}): rename the one "
            "that holds the code"
        )
    return Record(
        text=_string(fields, name, place),
        prompt=_string(fields, "prompt", place) if has_prompt else "",
        repository=_first(fields, REPOSITORY_FIELDS),
        path=_first(fields, PATH_FIELDS),
        language=_first(fields, LANGUAGE_FIELDS),
        licence=_first(fields, LICENCE_FIELDS),
    )


def _string(fields: dict[str, Any], name: str, place: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise ValueError(f"{place}: field {name!r} is a {type(value).__name__}, not a string")
    return value


def _first(fields: dict[str, Any], names: tuple[str, ...]) -> str:
    value = next((fields[name] for name in names if fields.get(name)), "")
    if isinstance(value, list):
        value = " OR ".join(str(item) for item in value)
    return str(value)
