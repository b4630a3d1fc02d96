"""Which files of a repository are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codegeex.complete.context.walk import SourceWalk, read_source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    files = {
        "a.py": "x = 1\n",
        "src/b.rs": "fn f() {}\n",
        "src/deep/c.go": "package c\n",
        "src/.hidden.py": "x\n",
        ".git/d.py": "x\n",
        "node_modules/e.js": "x\n",
        "out/f.py": "x\n",
        "src/g.py": "x\n",
        "README.md": "# x\n",
        "large.py": "x = 1\n" * 1000,
        "empty.py": "",
        ".gitignore": "out/\n",
        "src/.gitignore": "g.py\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "secret.py").write_text("key = 1\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/s.py").write_text("key = 1\n")
    (root / "link.py").symlink_to(tmp_path / "secret.py")
    (root / "linked").symlink_to(tmp_path / "outside")
    return root.resolve()


def _paths(walk: SourceWalk) -> list[str]:
    return [found.path for found in walk.files()]


def test_hidden_ignored_large_and_linked_files_are_left_out(root: Path) -> None:
    walk = SourceWalk(str(root), most=100, max_bytes=2000)
    assert _paths(walk) == ["a.py", "src/b.rs", "src/deep/c.go"]
    assert {found.language for found in walk.files()} == {"python", "rust", "go"}


def test_nearest_files_come_first_when_there_are_too_many(root: Path) -> None:
    assert _paths(SourceWalk(str(root), most=2, max_bytes=2000)) == ["a.py", "src/b.rs"]


def test_later_walk_sees_what_changed(root: Path) -> None:
    walk = SourceWalk(str(root), most=100, max_bytes=2000)
    before = {found.path: found for found in walk.files()}
    (root / "src/new.py").write_text("y = 1\n")
    (root / "src/b.rs").unlink()
    (root / "a.py").write_text("x = 22\n")
    os.utime(root / "a.py", ns=(1, 1))
    after = {found.path: found for found in walk.files()}
    assert set(after) == {"a.py", "src/new.py", "src/deep/c.go"}
    assert after["a.py"] != before["a.py"]
    assert after["src/deep/c.go"] == before["src/deep/c.go"]
    (root / ".gitignore").write_text("src\n")
    os.utime(root / ".gitignore", ns=(5, 5))
    (root / "src/deep/more.go").write_text("package c\n")
    assert "src/new.py" not in _paths(walk) and "out/f.py" in _paths(walk)


def test_folder_that_is_gone_has_no_files(tmp_path: Path) -> None:
    assert _paths(SourceWalk(str(tmp_path / "none"), most=9, max_bytes=9)) == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("binary.py", b"a\0b"),
        ("latin.py", "größe".encode("latin-1")),
        ("long.py", b"x" * 1001),
        ("minified.js", b"x=1;" * 200),
        ("none.py", None),
    ],
)
def test_nothing_is_read_of_what_is_no_source(
    tmp_path: Path, name: str, data: bytes | None
) -> None:
    root = str(tmp_path.resolve())
    if data is not None:
        (tmp_path / name).write_bytes(data)
    assert read_source(root, name, 1000) is None


def test_nothing_outside_the_root_is_read(root: Path) -> None:
    assert read_source(str(root), "a.py", 1000) == "x = 1\n"
    for path in ("link.py", "linked/s.py", "../secret.py", str(root.parent / "secret.py")):
        assert read_source(str(root), path, 1000) is None
