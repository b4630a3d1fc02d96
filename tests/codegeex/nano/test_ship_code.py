from __future__ import annotations

import argparse
import ast
import inspect
import json

import pytest

from codegeex.complete import Completer
from codegeex.data.config import PrepareConfig
from codegeex.data.prepare import prepare_code
from codegeex.fim import read_format
from codegeex.nano import measure, ship_code
from codegeex.training.run import TRAIN, train
from glm_core.checkpoint.loading import load_model
from glm_core.infer.engine import Engine
from glm_core.train.compose import compose_config


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A tiny model, trained for two steps and shipped; its folder and what was measured."""
    root = tmp_path_factory.mktemp("ship")
    for module in (argparse, ast, inspect, json.decoder, json.encoder, json.scanner):
        path = root / "code" / f"{module.__name__}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(inspect.getsource(module))
    out = root / "data"
    settings = {"vocab_size": 600, "heldout_fraction": 0.4, "near_duplicates": 0.0}
    prepare_code(PrepareConfig(sources=[str(root / "code")], out=str(out), **settings))
    run_dir = root / "run"
    overrides = [
        "experiment=debug/nano_code",
        f"data.source={out}",
        f"run_dir={run_dir}",
        "model.vocab_size=608",
        "model.hidden_size=64",
        "model.ffn_hidden_size=64",
        "trainer.max_steps=2",
        "trainer.eval_every=2",
        "trainer.num_threads=1",
    ]
    train(compose_config(TRAIN, overrides))
    folder = root / "nano"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "MOST_MEASURED", 3000)
        patch.setattr(ship_code, "NUM_HOLES", 6)
        patch.setattr(ship_code, "CALIBRATION_ROWS", 4)
        measured = ship_code.ship(run_dir, folder, note="Trained for a test.")
    return folder, measured


def test_folder_holds_a_quantized_model_that_fills_in_when_shipped(shipped):
    folder, _ = shipped
    model, tokenizer = load_model(folder, progress=False)
    format = read_format(folder, tokenizer)
    assert format is not None and format.name == "spm"
    config = json.loads((folder / "config.json").read_text())
    assert "quantize" in json.dumps(config)
    with Engine(model, tokenizer) as engine:
        assert Completer(engine, format, "nano").name == "nano"


def test_card_says_what_was_measured_when_shipped(shipped):
    folder, measured = shipped
    text = (folder / "README.md").read_text()
    assert "Trained for a test." in text
    assert f"{measured['shipped']['bits_per_byte']:.3f}" in text
    assert "5-gram" in text and "most frequent next line" in text
    assert json.loads((folder / "evaluation.json").read_text())["shipped"] == measured["shipped"]


def test_numbers_are_possible_when_measured(shipped):
    _, measured = shipped
    for name in ("shipped", "unquantized", "without_healing", "ngram", "next_line"):
        assert 0 <= measured[name]["exact"] <= 1 and 0 <= measured[name]["similarity"] <= 1
    # two steps teach little: nearly all ids are as likely, log2(600) bits for 2 to 3 bytes
    assert 1.5 < measured["unquantized"]["bits_per_byte"] < 5
    assert (
        abs(measured["shipped"]["bits_per_byte"] / measured["unquantized"]["bits_per_byte"] - 1)
        < 0.05
    )
    assert measured["ngram"]["bits_per_byte"] < measured["unquantized"]["bits_per_byte"]
    assert len(measured["samples"]) == len(ship_code.SAMPLES)
    assert measured["parameters"] > 30_000


def test_model_that_is_too_large_is_refused_when_shipped(shipped, tmp_path, monkeypatch):
    folder, measured = shipped
    monkeypatch.setattr(ship_code, "MAX_BYTES", 1000)
    monkeypatch.setattr(ship_code, "_measure", lambda *_: measured)
    with pytest.raises(ValueError, match="bytes and may have 1,000: train a smaller model"):
        ship_code.ship(folder.parent / "run", tmp_path / "nano")
    assert list(tmp_path.iterdir()) == []
