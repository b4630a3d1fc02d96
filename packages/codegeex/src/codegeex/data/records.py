"""Documents inside .jsonl files: the fields that data sets of code have, and prompts with code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from codegeex.data.files import SourceFile
from codegeex.languages import find_language, language_of_path
from glm_core.tokenizer.byte_bpe import valid_utf8

CODE_FIELDS = ("code", "content")
ANSWER_FIELDS = ("code", "completion", "response", "canonical_solution")
REPOSITORY_FIELDS = ("repo", "repository", "repo_name", "repository_name", "max_stars_repo_name")
PATH_FIELDS = ("path", "file_path", "filepath", "max_stars_repo_path")
LANGUAGE_FIELDS = ("language", "lang")
LICENCE_FIELDS = ("licence", "license", "licenses")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One document, before the filters."""

    text: str
    prompt: str = ""
    """What stands before the text and is not learnt."""
    repository: str = ""
    path: str = ""
    language: str = ""
    """Key of the language; empty if it is unknown."""
    licence: str = ""

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.repository}/{self.path}"


def records_between(file: SourceFile, start: int, stop: int) -> Iterator[tuple[Record, int]]:
    """Records whose lines begin between two bytes of a file, and the bytes of each.

    Raises:
        ValueError: naming file and line, for a line that is no record.
    """
    with open(file.path, "rb") as stream:
        if start:
            stream.seek(start - 1)
            stream.readline()  # the rest of a line that another part reads
        while (at := stream.tell()) < stop:
            line = stream.readline()
            if not line.strip():
                continue
            try:
                record = read_record(line)
            except ValueError as error:
                place = f"{file.name}:{_line_number(file.path, at)}"
                raise ValueError(f"{place} {error}") from error
            yield _completed(record, file), len(line)


def read_record(line: bytes) -> Record:
    """The document on one line.

    Raises:
        ValueError: what is wrong with it, as the end of a sentence that begins with its place.
    """
    fields = _object(line)
    has_prompt = "prompt" in fields
    name = next((n for n in (ANSWER_FIELDS if has_prompt else CODE_FIELDS) if n in fields), "")
    if not name:
        wanted = " or ".join(ANSWER_FIELDS[:2] if has_prompt else CODE_FIELDS)
        raise ValueError(
            f"has no field {wanted} (it has {', '.join(fields) or 'none'}): rename the one that "
            "holds the code"
        )
    return Record(
        text=_string(fields, name),
        prompt=_string(fields, "prompt") if has_prompt else "",
        repository=_first(fields, REPOSITORY_FIELDS),
        path=_first(fields, PATH_FIELDS),
        language=_first(fields, LANGUAGE_FIELDS),
        licence=_first(fields, LICENCE_FIELDS),
    )


def _object(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8: convert the file, or remove the line") from error
    except (ValueError, RecursionError) as error:
        told = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise ValueError(f"is not valid JSON ({told}): fix or remove the line") from error
    if not isinstance(fields, dict):
        raise ValueError(
            f'is a {type(fields).__name__}, not an object: write {{"code": ...}} on each line'
        )
    return fields


def _string(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise ValueError(f"has no string in field {name!r}, but {json.dumps(value)[:40]}")
    return value.replace("\r\n", "\n")


def _first(fields: dict[str, Any], names: Sequence[str]) -> str:
    value = next((fields[name] for name in names if fields.get(name)), "")
    if isinstance(value, list):
        value = " OR ".join(str(item) for item in value)
    return valid_utf8(str(value))


def _completed(record: Record, file: SourceFile) -> Record:
    """The record with its language's key, and with what is known of the file."""
    return replace(
        record,
        repository=record.repository or f"{file.repository}/{file.name}",
        language=_language(record),
        licence=record.licence or file.licence,
    )


def _language(record: Record) -> str:
    if record.language:
        try:
            return find_language(record.language).key
        except ValueError:
            pass  # a name of its own; the path may tell
    found = language_of_path(record.path) if record.path else None
    return found.key if found else ""


def _line_number(path: str, at: int) -> int:
    """Number of the line that begins at byte `at`, from 1."""
    number = 1
    with open(path, "rb") as stream:
        while at > 0:
            block = stream.read(min(at, 1 << 20))
            if not block:
                break
            number += block.count(b"\n")
            at -= len(block)
    return number
