"""The Makefile: clear when Python is too old, quick the second time, honest after a failure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ["demo", "test", "lint", "bench", "nano"]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(["make", *words], cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture
def house(tmp_path) -> Path:
    """A folder with the Makefile and what it reads, and no .venv."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "hatch_build.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def fake_python(folder: Path, body: str) -> str:
    path = folder / "python-fake"
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_targets_are_listed_when_asked_for_help(house):
    out = make(house, "help").stdout
    assert all(re.search(rf"make {target} +\w", out) for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_environment_comes_first_when_it_is_missing(house, target):
    plan = make(house, "-n", target).stdout
    assert plan.index("pip install") < plan.index("touch .venv/.installed")
    assert ".venv/bin/" in plan.partition("touch .venv/.installed")[2]


def test_nothing_is_installed_when_the_stamp_is_newer(house):
    (house / ".venv").mkdir()
    (house / ".venv" / ".installed").touch()
    assert "pip" not in make(house, "-n", "test").stdout
    os.utime(house / "constraints.txt", (2e9, 2e9))
    assert "pip install" in make(house, "-n", "test").stdout


def test_version_is_named_when_python_is_too_old(house):
    run = make(house, "test", fake_python(house, "exit 1"))
    assert run.returncode != 0
    assert "is older than Python 3.11 or missing; try: make PYTHON=python3.12 test" in run.stderr
    assert not (house / ".venv").exists()


def test_no_stamp_is_left_when_the_install_fails(house):
    # `-c` (the version check) passes; `-m venv .venv` makes a python whose pip fails.
    body = (
        '[ "$1" = -c ] && exit 0\n'
        "mkdir -p .venv/bin\n"
        "printf '#!/bin/bash\\necho Collecting torch; exit 1\\n' > .venv/bin/python\n"
        "chmod +x .venv/bin/python"
    )
    run = make(house, "lint", fake_python(house, body))
    assert run.returncode != 0
    assert "Collecting torch" in run.stdout
    assert (house / ".venv" / "bin" / "python").exists()
    assert not (house / ".venv" / ".installed").exists()
