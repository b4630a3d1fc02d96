"""Holes drawn in source files."""

import pytest

from codegeex.evaluate.infilling.held_out import MULTI, SINGLE, draw_tasks


@pytest.fixture
def folder(tmp_path):
    source = "import os\n\n\ndef f(x):\n    if x:\n        return 1\n    }\n\n    return x\n"
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.py").write_text(source)
    (tmp_path / "b.go").write_bytes(b"package main\r\n\r\nfunc main() {\r\n}\r\n")
    (tmp_path / "picture.py").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "nul.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "notes.unknown").write_text("no code at all\n")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "c.py").write_text("hidden = 1\n")
    return tmp_path


def whole(task):
    return task.hole.prefix + task.expected + task.hole.suffix


def test_text_is_whole_when_what_stood_in_a_hole_is_put_back(folder):
    for suite in (SINGLE, MULTI):
        tasks = draw_tasks(folder, 100, suite)
        assert {task.hole.path for task in tasks.values()} == {"inner/a.py", "b.go"}
        for task in tasks.values():
            text = (folder / task.hole.path).read_text()
            assert whole(task) == text
            assert task.matches(task.expected) and not task.matches(task.expected + "x")


def test_line_begins_behind_its_indentation_when_one_is_wanted(folder):
    tasks = draw_tasks(folder, 100, SINGLE, ["python"])
    assert set(tasks) == {f"single-line/inner/a.py:{line}" for line in (1, 4, 5, 6, 9)}
    task = tasks["single-line/inner/a.py:6"]
    assert (task.expected, task.hole.prefix[-8:]) == ("return 1", " " * 8)
    assert task.hole.suffix.startswith("\n    }")
    assert task.truncate("return 1\n    more") == "return 1"
    assert task.truncate("\nreturn 1") == ""
    assert task.is_over("return 1\n", "\n") and not task.is_over("return 1", "1")


def test_several_lines_end_with_one_that_is_not_empty(folder):
    for task in draw_tasks(folder, 100, MULTI, seed=3).values():
        lines = task.expected.split("\n")
        assert len(lines) <= 8 and lines[-1].strip()
        assert task.truncate("a\nb") == "a\nb"


def test_holes_are_the_same_when_seed_and_files_are(folder):
    one, same, other = (list(draw_tasks(folder, 4, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert len(one) == 4


def test_one_file_can_be_named_and_nothing_is_refused(folder, tmp_path):
    assert len(draw_tasks(folder / "inner" / "a.py", 2)) == 2
    with pytest.raises(ValueError, match="has no source file with lines to guess"):
        draw_tasks(folder, 5, languages=["rust"])
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        draw_tasks(tmp_path / "nowhere", 5)
