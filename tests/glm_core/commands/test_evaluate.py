"""``glm evaluate`` on a tiny random model and a tiny corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_core import cli
from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.model import Transformer, TransformerConfig
from glm_core.tokenizer import ByteBPETokenizer

TEXT = (
    "The with statement wraps a block. A context manager enters and leaves it again, so that the "
    "file is closed even when the block raises an error in the middle of its work.\n\n"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root: Path = tmp_path_factory.mktemp("evaluate")
    tokenizer = ByteBPETokenizer.train([TEXT] * 4, 300)
    config = TransformerConfig(
        vocab_size=300, hidden_size=32, num_layers=1, num_heads=2, max_position_embeddings=64
    )
    model = Transformer(config)
    model.init_weights(0)
    save_pretrained(model, tokenizer, root / "model")
    (root / "corpus").mkdir()
    for index in range(30):
        (root / "corpus" / f"{index}.txt").write_text(f"Number {index}. " + TEXT * 2)
    return str(root / "model"), str(root / "corpus")


def _argv(folders: tuple[str, str], *more: str) -> list[str]:
    model, corpus = folders
    argv = ["evaluate", "--model", model, "--data", corpus, "--heldout-fraction", "0.2"]
    return [*argv, "--questions", "4", *more]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_CACHE", str(tmp_path))


def test_json_has_bits_per_byte(
    folders: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(_argv(folders, "--json", "--limit", "2")) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bits_per_byte"] > 1 and result["documents"] == 2
    assert len(result["heldout_sha256"]) == 64 and result["seed"] == 1234


def test_table_shows_measures_and_baselines(
    folders: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(_argv(folders, "--baselines", "--ngram-order", "2")) == 0
    out = capsys.readouterr().out
    for words in ("bits per byte", "kneser ney 2gram", "lzma", "one word, exact", "last word, uni"):
        assert words in out


def test_bad_input_is_one_line_and_status_2(
    folders: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(_argv(folders, "--limit", "-3")) == 2
    assert "limit is -3: it must be at least 0" in capsys.readouterr().err
