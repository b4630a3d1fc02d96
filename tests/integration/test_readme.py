"""What the documents tell a reader to type exists, and does what they say."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from codegeex.cli import PROGRAM as CODEGEEX
from codegeex.training.run import TRAIN as TRAIN_CODE
from glm_core import cli
from glm_core.cli import GLM
from glm_core.train.compose import TRAIN, valid_keys

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

PROGRAMS = {program.name: program for program in (GLM, CODEGEEX)}


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[list[str]]:
    """Each command line of the document's shell blocks, without comments."""
    text = "\n".join(blocks(path, "bash")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_command_exists_when_a_document_names_it(path, capsys):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for program, *words in commands(path):
        if program == "make":
            assert set(w for w in words if "=" not in w) <= set(targets), words
        elif known := PROGRAMS.get(program.removeprefix(".venv/bin/")):
            assert words[0] in known.commands, words
            usage = _usage(known, words, capsys)
            flags = [word.partition("=")[0] for word in words if word.startswith("--")]
            assert [flag for flag in flags if flag not in usage] == [], words


def _usage(program: cli.Program, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The help of a command, and of the part of it that the next word names."""
    usage = ""
    for asked in ([words[0], "--help"], [*words[:2], "--help"]):
        if len(asked) == 2 or re.fullmatch(r"[a-z-]+", asked[1]):
            cli.main(asked, program)
            usage += capsys.readouterr().out
    assert usage
    return usage


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_import_works_when_a_document_shows_it(path):
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert [a.name for a in node.names if not hasattr(module, a.name)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_setting_exists_when_a_document_names_it(path):
    """Settings in shell lines and in `code`: the typed config has each of them."""
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:model|data|optim|trainer)\.[a-z_]+)\b(?!\()", text))
    known = {*valid_keys(TRAIN), *valid_keys(TRAIN_CODE)}
    known |= {"trainer.max_step", "trainer.py", "model.safetensors", "model.config"}  # other things
    assert named <= known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_local_link_leads_somewhere_when_followed(path):
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_dive_into_the_code_names_what_exists_when_read():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Dive into the code")[2].partition("\n## ")[0]
    paths = re.findall(r"\(([\w/.-]+)\)", section)
    assert len(paths) >= 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_ci_runs_lint_and_test_when_started():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = script.read_text(encoding="utf-8").splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-2:] == ["make lint", "make test"]
    subprocess.run(["bash", "-n", script], check=True)
