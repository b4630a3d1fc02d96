"""``codegeex serve``: flags, and the whole command as an editor meets it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from codegeex.commands import serve
from codegeex.fim import FORMATS, write_format
from codegeex.testing import tiny_code_model
from glm_core.chat.transcript import format_or_transcript
from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.infer.engine import Engine, EngineConfig
from glm_core.serve.models import ServedModel

COMMAND = "import sys; from codegeex.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as training leaves it."""
    path = tmp_path_factory.mktemp("models") / "tiny-code"
    save_pretrained(*tiny_code_model(), path)
    return path


@pytest.fixture
def served() -> Iterator[ServedModel]:
    with Engine(*tiny_code_model(), config=EngineConfig(cache_bytes=1 << 22)) as engine:
        format = format_or_transcript(engine.tokenizer, engine.layout)
        yield ServedModel(name="tiny", engine=engine, chat_format=format)


def _parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(flags)


def test_nano_code_is_served_where_nothing_else_is_named() -> None:
    assert _parsed().model == ["nano-code"]
    args = _parsed("--model", "a=./a", "--model", "b", "--keep-older", "--port", "8012")
    assert args.model == ["a=./a", "b"] and args.keep_older and args.port == 8012


def test_format_is_told_by_the_flag_the_folder_or_the_tokenizer(
    served: ServedModel, folder: Path, tmp_path: Path
) -> None:
    def told(path: Path, name: str | None = None) -> str | None:
        completer = serve.completers_of([served], {"tiny": str(path)}, name)["tiny"]
        return completer.format.name if completer.format else None

    assert told(folder) == "spm"
    assert told(folder, "psm") == "psm"
    write_format(FORMATS["psm"], tmp_path)
    assert told(tmp_path) == "psm"
    with pytest.raises(ValueError, match="did you mean spm"):
        told(folder, "spn")


def test_model_without_sentinels_completes_from_the_prefix_alone(
    served: ServedModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codegeex.fim.format_of_model", lambda model, tokenizer, chosen: None)
    with caplog.at_level(logging.WARNING):
        completers = serve.completers_of([served], {"tiny": "x"}, None)
    assert completers["tiny"].format is None
    assert "tiny was not taught to fill in" in caplog.text


def test_name_is_warned_of_when_plugins_would_take_it_for_another_models(
    served: ServedModel, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    named = replace(served, name="CodeGeeX-mine")
    with caplog.at_level(logging.WARNING):
        serve.completers_of([named], {"CodeGeeX-mine": str(folder)}, None)
        assert "call it something else, as in --model other=" in caplog.text
        caplog.clear()
        serve.completers_of([named], {"CodeGeeX-mine": str(folder)}, "codegeex4")
        assert not caplog.records


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (["--model", "nano-text"], "no model here completes code (nano-text)"),
        (["--fim-format", "spn"], "did you mean spm?"),
        (["--model", "./nowhere"], "nowhere"),
    ],
)
def test_start_is_refused_in_one_line(
    flags: list[str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from codegeex.cli import main

    assert main(["serve", "--port", "0", "--cache-memory", "64MB", *flags]) != 0
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and rule in last


def test_editor_is_answered_until_the_server_is_told_to_end(folder: Path) -> None:
    arguments = ["serve", "--model", str(folder), "--port", "0", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments, "--cache-memory", "16MB"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        told = json.loads(line)
        assert told["models"] == ["tiny-code"]
        body = {"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n"}
        reply = httpx2.post(f"{told['url']}/infill", json=body, timeout=30)
        assert reply.status_code == 200 and reply.json()["tokens_evaluated"] > 0
        assert httpx2.get(f"{told['url']}/health").json() == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0 and "stopped" in log
    finally:
        process.kill()
        process.wait()


def test_start_tells_editors_where_to_ask() -> None:
    text = serve._ready_text(["a"], "http://127.0.0.1:8000", True)
    assert "serving a at http://127.0.0.1:8000" in text
    assert "http://127.0.0.1:8000/infill" in text and "$GLM_API_KEY" in text
    assert "GLM_API_KEY" not in serve._ready_text(["a"], "http://127.0.0.1:8000", False)
