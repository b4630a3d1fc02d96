"""What helps at a cursor, from the other files of a repository."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codegeex.complete.context import RepositoryContext
from codegeex.hole import Hole

SHAPES = '''class Circle:
    """A round one."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def area(self) -> float:
        return 3.14 * self.radius**2


class Square:
    def __init__(self, side: float) -> None:
        self.side = side


def unrelated(value):
    return value
'''
REPORT = """def print_area_report(shapes, currency):
    for shape in shapes:
        total_area = shape.area()
        print(total_area, currency)
    return total_area
"""
MAIN = "from shapes import Circle\n\n\ndef report(currency):\n    circle = Circle(2)\n    "
HOLE = Hole(prefix=MAIN, suffix="\n    print(total_area, currency)\n", path="app/main.py")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "app/main.py": MAIN,
        "app/shapes.py": SHAPES,
        "app/report.py": REPORT,
        "app/other.py": "import socket\n\n\ndef listen(port):\n    return socket.socket()\n",
        "app/report.go": REPORT,
    }.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "root"


@pytest.fixture
def context(root: Path) -> Iterator[RepositoryContext]:
    found = RepositoryContext(root, every_s=0.01)
    found.refresh()
    yield found
    found.close()
    assert "repository-context" not in {thread.name for thread in threading.enumerate()}


def test_declarations_and_snippets_come_with_the_best_last(context: RepositoryContext) -> None:
    found = context.references(HOLE, budget=1000)
    assert [one.path for one in found][-2:] == ["app/report.py", "app/shapes.py"]
    declared = found[-1].text
    assert declared.startswith("class Circle:\n    def __init__(self, radius: float) -> None:\n")
    assert "Square" not in declared and "3.14" not in declared
    assert found[-2].text == REPORT
    assert "app/main.py" not in {one.path for one in found}
    assert "app/other.py" not in {one.path for one in found}


def test_snippets_of_another_language_count_less(context: RepositoryContext) -> None:
    paths = [one.path for one in context.references(HOLE, budget=1000)]
    assert paths.index("app/report.go") < paths.index("app/report.py")


@pytest.mark.parametrize("budget", [0, 10, 60, 90, 130, 500])
def test_references_fit_into_the_budget(context: RepositoryContext, budget: int) -> None:
    def count(text: str) -> int:
        return len(text.split())

    found = context.references(HOLE, budget, count)
    assert sum(count(one.text) + count(one.path) for one in found) <= budget
    assert bool(found) == (budget >= 60)


def test_unsaved_text_stands_in_for_the_stored_one(context: RepositoryContext) -> None:
    changed = REPORT.replace("print_area_report", "print_area_bill")
    context.note("app/report.py", changed)
    found = {one.path: one.text for one in context.references(HOLE, budget=1000)}
    assert found["app/report.py"] == changed
    context.note(str(context.root) + "/app/report.py")
    found = {one.path: one.text for one in context.references(HOLE, budget=1000)}
    assert found["app/report.py"] == REPORT


def test_changes_are_seen_without_being_told(context: RepositoryContext, root: Path) -> None:
    context.references(HOLE, budget=1000)
    (root / "app/report.py").unlink()
    changed = REPORT.replace("print_area_report", "print_area_invoice")
    (root / "app/invoice.py").write_text(changed)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        paths = {one.path for one in context.references(HOLE, budget=1000)}
        if "app/invoice.py" in paths:
            break
        time.sleep(0.01)
    assert "app/invoice.py" in paths and "app/report.py" not in paths


@pytest.mark.parametrize("path", ["../secret.py", "/etc/passwd", "", "app/../../secret.py", "."])
def test_file_outside_the_root_is_nobodys(context: RepositoryContext, path: str) -> None:
    assert context.path_of(path) == ""
    context.note(path, "total_area currency print shapes")
    hole = Hole(prefix=MAIN, suffix=HOLE.suffix, path=path)
    for reference in context.references(hole, budget=1000):
        assert os.path.exists(os.path.join(context.root, reference.path))


def test_path_may_be_absolute(context: RepositoryContext) -> None:
    assert context.path_of(f"{context.root}/app/main.py") == "app/main.py"
    assert context.path_of("app/./main.py") == "app/main.py"


def test_nothing_is_found_before_anything_is_read(root: Path) -> None:
    context = RepositoryContext(root)
    context.close()
    assert context.references(HOLE, budget=1000) == ()


def test_root_is_refused_when_it_is_no_folder(root: Path) -> None:
    with pytest.raises(ValueError, match="main.py is no folder: give the root of the repository"):
        RepositoryContext(root / "app/main.py")


def test_thousand_files_are_searched_within_the_time_of_a_keystroke(tmp_path: Path) -> None:
    for number in range(1000):
        lines = [f"def function_{number}_{line}(value_{line}): pass" for line in range(60)]
        (tmp_path / f"module_{number}.py").write_text("\n".join(lines))
    context = RepositoryContext(tmp_path)
    context.refresh()
    context.close()
    hole = Hole(prefix="def function_7_3(value_3, value_4):\n    ", path="new.py")
    seconds = []
    for _ in range(9):
        start = time.thread_time()
        assert context.references(hole, budget=500)
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.02
