from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from glm_core import cli

WORDS = "the model reads a text with blanks and fills every blank with words of its own".split()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred short documents."""
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    chooser = random.Random(0)
    lines = [json.dumps({"text": " ".join(chooser.choices(WORDS, k=60)) + "."}) for _ in range(200)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def arguments(corpus: Path, tmp_path: Path) -> list[str]:
    return [
        "train",
        "experiment=debug",
        f"data.source={corpus}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "data.vocab_size=300",
        "data.seq_length=48",
        "trainer.max_steps=6",
        "trainer.checkpoint_every=2",
        "trainer.log_every=1",
        "trainer.micro_batch_size=2",
        "trainer.global_batch_size=4",
        "trainer.num_threads=1",
    ]


def run(*arguments: str) -> int:
    return cli.main(list(arguments))


def test_run_dir_is_complete_when_trained(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    status = run(*arguments, f"run_dir={run_dir}", "trainer.eval_every=3", "--json")
    out, err = capsys.readouterr()
    assert status == 0, err
    result = json.loads(out)
    assert result["step"] == 6 and result["finished"] and result["loss"] > 0
    assert result["model"] == f"{run_dir}/model"
    names = {path.name for path in run_dir.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "loss.png", "model"} <= names
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval_loss" in row] == [3, 6]
    assert "step 6/6 loss" in err and "max_steps: 6" in (run_dir / "config.yaml").read_text()


def test_model_is_bit_identical_when_killed_with_other_workers(
    arguments: list[str], tmp_path: Path
) -> None:
    code = """
import os, signal, sys
from glm_core import cli
from glm_core.train.callbacks import MetricsFile
write = MetricsFile.on_log
def die_after_row(self, trainer, row):
    write(self, trainer, row)
    if row["step"] == 5:
        os.killpg(os.getpgid(0), signal.SIGKILL)  # the workers too
MetricsFile.on_log = die_after_row
cli.main(sys.argv[1:])
"""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    child = subprocess.run(
        [sys.executable, "-c", code, *arguments, f"run_dir={killed}", "data.workers=2"],
        start_new_session=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert run(*arguments, f"run_dir={killed}", "data.workers=0") == 0
    assert run(*arguments, f"run_dir={whole}", "data.workers=1") == 0
    for name in ("model/model.safetensors", "checkpoints/step-00000006/optimizer.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    steps = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_plan_is_printed_and_nothing_written_when_dry_run(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, f"run_dir={tmp_path / 'run'}", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["config"]["trainer"]["max_steps"] == 6 and plan["parameters"] > 1000
    assert plan["memory_bytes"]["total"] > 16 * plan["parameters"]
    assert run(*arguments, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "hidden_size: 64" in text and "optimizer" in text and "MiB" in text
    assert list(tmp_path.iterdir()) == []


def test_experiments_are_listed_when_none_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--json") == 2
    out, err = capsys.readouterr()
    assert "experiment=nano_text" in err and "debug" in json.loads(out)["experiments"]


def test_one_line_and_status_two_when_key_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "experiment=debug", "trainer.max_step=3") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "did you mean trainer.max_steps" in err


def test_run_is_refused_and_kept_when_settings_differ(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = f"run_dir={tmp_path / 'run'}"
    assert run(*arguments, run_dir, "trainer.max_steps=2") == 0
    saved = (tmp_path / "run" / "config.yaml").read_text()
    assert run(*arguments, run_dir, "model.hidden_size=128") == 2
    assert "model.hidden_size was 64 and is now 128" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_text() == saved
    assert run(*arguments, run_dir, "trainer.max_steps=3") == 0  # longer is the same run


def test_run_goes_on_when_its_corpus_is_named_by_folder(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = f"run_dir={tmp_path / 'run'}"
    assert run(*arguments, run_dir, "trainer.max_steps=2") == 0
    (prepared,) = (path.parent for path in (tmp_path / "cache").rglob("manifest.json"))
    assert f"tokens in {prepared}" in capsys.readouterr().err
    arguments = [word for word in arguments if not word.startswith("data.source")]
    assert run(*arguments, run_dir, f"data.source={prepared}", "trainer.max_steps=3") == 0
    other = tmp_path / "other.txt"
    other.write_text("Something else altogether, and no blank in it at all. " * 200)
    assert run(*arguments, run_dir, f"data.source={other}", "data.heldout_fraction=0") == 2
    assert "corpus was " in capsys.readouterr().err


def test_status_one_when_training_diverges(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverge(*_: Any) -> None:
        raise FloatingPointError("the gradient was not finite")

    monkeypatch.setattr("glm_core.train.trainer.Trainer.fit", diverge)
    assert run(*arguments, f"run_dir={tmp_path / 'run'}", "--json") == 1
    out, err = capsys.readouterr()
    assert "not finite" in json.loads(out)["error"] and "Traceback" not in err
