"""Patterns of .gitignore, against git itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codegeex.complete.context.ignore import IgnoreRules

PATTERNS = """
*.log
!keep.log
build/
/top.py
docs/*.txt
**/cache
a/**/z.py
lib/**
# comment
\\#hash
\\!bang
spaced\\ 
x[0-9].py
y[!a].py
q?.py
*
!*.py
foo*bar
/a/
b/c
[
a\\*b
"""  # noqa: W291
PATHS = """
a.log keep.log d/a.log build/x.py d/build/x.py build top.py d/top.py docs/a.txt docs/d/a.txt
cache/x.py d/cache/x.py cache a/z.py a/b/z.py a/b/c/z.py lib/x.py lib/d/x.py #hash !bang x1.py xa.py
ya.py yb.py qq.py q.py foobar foo/bar fooxbar b/c b/c/x.py d/b/c a*b aXb
""".split()


def _is_ignored(path: str, rules: IgnoreRules) -> bool:
    parts = path.split("/")
    folders = ["/".join(parts[: count + 1]) for count in range(len(parts) - 1)]
    return any(rules.leaves_out(one, True) for one in folders) or rules.leaves_out(path, False)


def _ignored_by_git(folder: Path, paths: list[str]) -> set[str]:
    command = ["git", "-C", str(folder), "check-ignore", "--no-index", "-z", "--stdin"]
    text = "\0".join(paths).encode()
    found = subprocess.run(command, input=text, capture_output=True).stdout
    return set(found.decode().split("\0")) - {""}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("git") is None:
        pytest.skip("needs git as the oracle")
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(PATTERNS.split("\n")), min_size=1, max_size=5))
def test_what_is_left_out_is_what_git_ignores(repository: Path, lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    (repository / ".gitignore").write_text(text)
    rules = IgnoreRules().below("", text)
    expected = _ignored_by_git(repository, PATHS)
    assert {path for path in PATHS if _is_ignored(path, rules)} == expected, lines


def test_deeper_file_has_the_last_word() -> None:
    rules = IgnoreRules().below("", "*.py\n!a.py\n").below("d/", "!b.py\na.py\n")
    assert not rules.leaves_out("d/b.py", False) and rules.leaves_out("d/a.py", False)
    assert not rules.leaves_out("a.py", False) and rules.leaves_out("e/b.py", False)
