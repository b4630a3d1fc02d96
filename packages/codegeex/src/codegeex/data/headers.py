"""The licence notice at the top of a file: found, judged, taken away."""

from __future__ import annotations

import re

from codegeex.data.licences import is_permissive

_TOP_CHARS = 8_000
_NOTICE = re.compile(
    r"copyright|\(c\)|©|licen[cs]e[ds]?\b|SPDX-|all rights reserved|permission is hereby", re.I
)
_SPDX = re.compile(r"SPDX-License-Identifier:\s*([^\n*]+?)\s*(?:\*/|-->)?\s*$", re.M | re.I)
_COPYLEFT = re.compile(
    r"GNU\s+(?:Lesser|Library|Affero|Free)?\s*(?:General\s+)?(?:Public|Documentation)\s+Licen[cs]e"
    r"|\b[AL]?GPL(?:v?[123]|-[123])?\b|Mozilla\s+Public\s+Licen[cs]e|\bMPL-?\s?[12]"
    r"|Eclipse\s+Public\s+Licen[cs]e|Common\s+Development\s+and\s+Distribution"
    r"|Server\s+Side\s+Public|Business\s+Source\s+Licen[cs]e|\bCC[- ]BY[- ](?:NC|SA|ND)"
    r"|proprietary\s+and\s+confidential|confidential\s+and\s+proprietary|NVIDIA\s+PROPRIETARY",
    re.I,
)
_LINE_BREAK = re.compile(r"\s*\n[\s*#/;%!-]*")
_KEEP_LINE = re.compile(r"#!|\s*#.*coding[:=]|\s*<\?|\s*//go:build|\s*// \+build")
_LINE_SIGNS = ("#", "//", "--", ";", "%", "!")
_BLOCKS = (("/*", "*/"), ("<!--", "-->"), ("(*", "*)"), ("{-", "-}"))


def licence_in(text: str) -> str:
    """What the comments at the top say of the licence: an SPDX expression, "copyleft", or ""."""
    top = "\n".join(part for part, _ in _comments(text))
    told = _SPDX.search(top)
    if told:
        return told[1].strip("\"' ")
    return "copyleft" if _COPYLEFT.search(_LINE_BREAK.sub(" ", top)) else ""


def forbids(text: str) -> bool:
    """Whether the header names a licence that is not permissive."""
    told = licence_in(text)
    return told == "copyleft" or (bool(told) and not is_permissive(told))


def without_notice(text: str) -> str:
    """The text without the comments at its top that are about copyright and licence.

    A `#!` line, a coding line and build tags stay; so do comments about anything else.
    """
    kept: list[str] = []
    end = 0
    for part, end_of_part in _comments(text):
        if not _NOTICE.search(part):
            break
        kept.extend(line for line in part.split("\n") if _KEEP_LINE.match(line))
        end = end_of_part
    if not end:
        return text
    rest = text[end:].lstrip("\n")
    return "\n".join([*kept, rest]) if kept else rest


def _comments(text: str) -> list[tuple[str, int]]:
    """Comments before the first line of code, one per block, each with where it ends."""
    found: list[tuple[str, int]] = []
    at = 0
    while at < min(len(text), _TOP_CHARS):
        line_end = _line_end(text, at)
        line = text[at:line_end].strip()
        block = next((pair for pair in _BLOCKS if line.startswith(pair[0])), None)
        if not line or line in ("<?php",):
            at = line_end + 1
        elif block:
            close = text.find(block[1], at + len(block[0]))
            if close < 0:
                break
            end = _line_end(text, close)
            if text[close + len(block[1]) : end].strip():
                break  # code stands behind the comment
            found.append((text[at:end], end + 1))
            at = end + 1
        elif line.startswith(_LINE_SIGNS) and not line.startswith(("#include", "#define", "#if")):
            end = at
            while end < len(text) and _is_comment(text[end : _line_end(text, end)]):
                end = _line_end(text, end) + 1
            if end == at:
                break
            found.append((text[at : end - 1], end))
            at = end
        else:
            break
    return found


def _is_comment(line: str) -> bool:
    stripped = line.strip()
    return stripped.startswith(_LINE_SIGNS) and not stripped.startswith(
        ("#include", "#define", "#if", "#pragma", "#import")
    )


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end
