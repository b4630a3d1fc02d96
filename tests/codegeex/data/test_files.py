import os
import subprocess

import pytest

from codegeex.data.config import PrepareConfig
from codegeex.data.files import is_test, record_files, walk
from codegeex.data.reasons import Tally

TEXT = "print('a line of code')\n" * 50


def make(root, *names, text=TEXT):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def walked(root, **settings):
    tally = Tally()
    config = PrepareConfig(sources=["x"], out="y", **settings)
    files = list(walk(root, "src", config, tally))
    return [(file.repository, file.name) for file in files], tally.as_dict()


def test_first_folders_are_repositories_when_nothing_else_tells(tmp_path):
    make(tmp_path, "b/x.py", "a/z/y.py", "a/m.py", "top.py")
    found, skipped = walked(tmp_path)
    assert found == [("src", "top.py"), ("src/a", "m.py"), ("src/a", "z/y.py"), ("src/b", "x.py")]
    assert skipped == {}


def test_nearest_git_folder_is_the_repository_when_there_is_one(tmp_path):
    make(
        tmp_path, "group/one/.git/config", "group/one/src/a.py", "group/two/.git", "group/two/b.py"
    )
    make(tmp_path, "group/c.py")
    found, _ = walked(tmp_path)
    assert found == [
        ("src/group", "c.py"),
        ("src/group/one", "src/a.py"),
        ("src/group/two", "b.py"),
    ]


def test_source_is_one_repository_when_it_holds_git(tmp_path):
    make(tmp_path, ".git/config", "a/b.py", "c.py")
    assert walked(tmp_path)[0] == [("src", "c.py"), ("src", "a/b.py")]


def test_files_that_git_ignores_are_left_out_when_git_tells(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    make(tmp_path, "a.py", "build/out.py", "src/b.py", "src/local.py")
    (tmp_path / ".gitignore").write_text("build/\nlocal.py\n")
    found, skipped = walked(tmp_path)
    assert found == [("src", "a.py"), ("src", "src/b.py")]
    assert skipped == {"ignored": [2, 2 * len(TEXT)]}


def test_files_are_counted_when_they_are_left_out(tmp_path):
    make(tmp_path, "a/x.bin", "a/notes.md", "a/test_x.py", "tests/y.py", "a/vendor/z.py")
    make(tmp_path, "a/ok.py", "a/.hidden.py", "a/.hidden/x.py", "a/node_modules/x.js")
    make(tmp_path, "a/short.py", text="x\n")
    make(tmp_path, "a/long.py", text=TEXT * 100)
    make(tmp_path, "a/rows.jsonl", text="{}\n")
    found, skipped = walked(tmp_path)
    assert found == [("src/a", "ok.py")]
    assert {name: files for name, (files, _) in skipped.items()} == {
        "unknown_language": 2,
        "other_language": 1,
        "test": 2,
        "vendored": 1,
        "too_large": 1,
        "too_small": 1,
    }


def test_files_are_read_when_settings_ask_for_them(tmp_path):
    make(tmp_path, "a/notes.md", "tests/y.py", "a/vendor/z.py", "a/m.rs")
    names = ["markdown", "rust"]
    assert walked(tmp_path, languages=names)[0] == [("src/a", "m.rs"), ("src/a", "notes.md")]
    found, _ = walked(tmp_path, tests=True, vendored=True)
    assert found == [("src/a", "m.rs"), ("src/a", "vendor/z.py"), ("src/tests", "y.py")]


def test_links_are_not_followed_when_they_lead_in_circles(tmp_path):
    make(tmp_path, "a/x.py")
    os.symlink(tmp_path, tmp_path / "a" / "up")
    os.symlink(tmp_path / "a" / "x.py", tmp_path / "a" / "y.py")
    assert walked(tmp_path)[0] == [("src/a", "x.py")]


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("tests/helper.py", True),
        ("src/test_a.py", True),
        ("pkg/a_test.go", True),
        ("web/a.spec.ts", True),
        ("web/__tests__/a.js", True),
        ("conftest.py", True),
        ("testing_tools/latest.py", False),
        ("contest.py", False),
        ("attest/a.py", False),
    ],
)
def test_tests_are_told_when_a_path_is_usual(name, test):
    assert is_test(name) is test


def test_records_are_listed_when_a_folder_has_some(tmp_path):
    make(tmp_path, "b.jsonl", "a/c.jsonl.gz", "x.json", "y.jsonl.txt")
    files = record_files(tmp_path, "data")
    assert [(file.repository, file.name) for file in files] == [
        ("data", "a/c.jsonl.gz"),
        ("data", "b.jsonl"),
    ]
    assert all(file.holds_records for file in files)
