"""Throw-away environments of peers, with a fake interpreter in place of one that installs."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from glm_core.bench import environments
from glm_core.bench.environments import Environment

INTERPRETER = """#!/bin/sh
echo "pip $*"
echo "PYTHONPATH is '$PYTHONPATH', FLAGS are '$FLAGS'"
test -z "$BROKEN"
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Its `python -m venv` only writes an interpreter that prints its arguments."""
    maker = tmp_path / "maker"
    python = tmp_path / "bench" / "peer" / "bin" / "python"
    maker.write_text(
        f"#!/bin/sh\nmkdir -p {python.parent}\ncat > {python} <<'E'\n{INTERPRETER}E\n"
        f"chmod +x {python}\n"
    )
    maker.chmod(0o755)
    monkeypatch.setattr(environments, "ROOT", tmp_path / "bench")
    monkeypatch.setattr(sys, "executable", str(maker))
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    return Environment(
        name="peer", compiled="a==1", requirements=("b",), variables={"FLAGS": "-march=native"}
    )


def test_environment_is_made_once_when_it_is_missing(environment: Environment) -> None:
    assert "it is not set up: --setup-peers installs it" in environment.reason()
    assert environment.set_up() == "" and environment.reason() == ""
    log = environment.log.read_text()
    assert "pip -m pip install --no-cache-dir --no-binary a a==1 b" in log
    assert "PYTHONPATH is '', FLAGS are '-march=native'" in log
    environment.log.unlink()
    assert environment.set_up() == "" and not environment.log.exists()


def test_environment_is_made_anew_when_the_recipe_changed(environment: Environment) -> None:
    environment.set_up()
    (environment.folder / "old").touch()
    newer = Environment(name="peer", compiled="a==2", requirements=("b",))
    assert "was installed otherwise: --setup-peers does it again" in newer.reason()
    assert newer.set_up() == "" and not (newer.folder / "old").exists()
    assert json.loads((newer.folder / environments.STAMP).read_text())["compiled"] == "a==2"


def test_environment_counts_as_missing_when_installing_fails(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "1")
    assert environment.set_up() == f"installing it failed, as {environment.log} tells"
    assert "it is not set up" in environment.reason()


def test_progress_is_shown_when_installing_takes_long(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(environments, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(logging.getLogger("glm_core"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="glm_core"):
        environment.set_up()
    assert "setting up peer in" in caplog.text and "peer: still at it" in caplog.text
    assert caplog.text.rstrip().endswith("peer is set up")
