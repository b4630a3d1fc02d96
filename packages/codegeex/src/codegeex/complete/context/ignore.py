"""Which files of a folder its .gitignore files leave out.

Source: gitignore(5), section "Pattern format".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

GITIGNORE = ".gitignore"


@dataclass(frozen=True, slots=True)
class _Rule:
    regex: re.Pattern[str]
    """Of a path below the folder of the .gitignore."""
    keeps: bool
    only_folders: bool


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The patterns of one .gitignore and of those in the folders above it."""

    rules: tuple[tuple[str, tuple[_Rule, ...]], ...] = ()
    """Folder (with a slash at its end, empty for the root) and its rules, the root's first."""

    def below(self, folder: str, text: str) -> IgnoreRules:
        """Returns the rules for a folder whose .gitignore says `text`.

        Args:
            folder: relative to the root, with a slash at its end; empty for the root.
        """
        rules = tuple(_rules(text.splitlines()))
        return IgnoreRules((*self.rules, (folder, rules))) if rules else self

    def leaves_out(self, path: str, is_folder: bool) -> bool:
        """Whether a path, relative to the root, is ignored; its folders are not."""
        for folder, rules in reversed(self.rules):
            if not path.startswith(folder):
                continue
            below = path[len(folder) :]
            for rule in reversed(rules):
                if (is_folder or not rule.only_folders) and rule.regex.fullmatch(below):
                    return not rule.keeps
        return False


def _rules(lines: Iterable[str]) -> Iterable[_Rule]:
    for line in lines:
        pattern = re.sub(r"(?<!\\) +$", "", line)
        keeps = pattern.startswith("!")
        pattern = pattern[1:] if keeps else pattern
        if not pattern or pattern.startswith("#"):
            continue
        only_folders = pattern.endswith("/")
        regex = _regex(pattern.rstrip("/") if only_folders else pattern)
        if regex is not None:
            yield _Rule(regex, keeps, only_folders)


@lru_cache(maxsize=4096)
def _regex(pattern: str) -> re.Pattern[str] | None:
    """A pattern with a slash before its end is of one place, another one of every folder."""
    has_place = "/" in pattern
    pattern = pattern.removeprefix("/")
    out = "" if has_place else "(?:.*/)?"
    index = 0
    while index < len(pattern):
        rest = pattern[index:]
        if rest.startswith("**/") and (index == 0 or pattern[index - 1] == "/"):
            out, index = out + "(?:.*/)?", index + 3
        elif rest == "**" and index and pattern[index - 1] == "/":
            out, index = out + ".+", index + 2
        elif rest[0] == "*":
            out, index = out + "[^/]*", index + len(rest) - len(rest.lstrip("*"))
        elif rest[0] == "?":
            out, index = out + "[^/]", index + 1
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            inside = rest[1:end].replace("\\", r"\\")
            negated = inside[0] in "!^"
            out += f"(?!/)[{'^' if negated else ''}{inside[negated:]}]"
            index += end + 1
        else:
            escaped = rest[0] == "\\" and len(rest) > 1
            out += re.escape(rest[1] if escaped else rest[0])
            index += 2 if escaped else 1
    try:
        return re.compile(out, re.DOTALL)
    except re.error:
        return None  # as git does: such a pattern matches nothing
