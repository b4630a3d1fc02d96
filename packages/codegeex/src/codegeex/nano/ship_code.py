"""Turns a finished run of `experiment=nano_code` into the shipped nano-code model.

    python -m codegeex.nano.ship_code outputs/nano_code

Quantizes the weights to 4 bits (GPTQ on rows of the training data), measures them as shipped,
beside the unquantized ones and the baselines, and writes the card. Every number of the card is
measured here or read from the run's own files.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from codegeex.fim import FimFormat, read_format, write_format
from codegeex.nano.card import card
from codegeex.nano.measure import (
    NUM_HOLES,
    baselines,
    compression,
    documents_of,
    draw_holes,
    measured_documents,
    model_guesses,
    scores,
)
from codegeex.training.config import CodeDataConfig
from codegeex.training.dataset import CodeDataset
from glm_core.checkpoint.files import publish_folder
from glm_core.checkpoint.loading import load_model
from glm_core.checkpoint.pretrained import EMBEDDED
from glm_core.data.prepare import PreparedData, open_prepared, read_manifest
from glm_core.infer.engine import Engine
from glm_core.model.size import count_parameters
from glm_core.nano.ship_text import training_facts
from glm_core.quantize.folder import Calibration, quantize_folder
from glm_core.quantize.layout import QuantizeConfig

logger = logging.getLogger(__name__)

MAX_BYTES = 10_000_000
CALIBRATION_ROWS = 128
SEED = 0
SAMPLES = (
    ("def fib(n):\n    ", "\n\n\nprint(fib(10))\n"),
    ("def read_lines(path):\n    with open(path) as ", "\n        return list(file)\n"),
    ("class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n"
     "        ", "\n\n    def pop(self):\n        return self.items.pop()\n"),
    ("for index, line in enumerate(", "):\n    print(index, line)\n"),
    ('def is_even(number: int) -> bool:\n    """Tell whether a number is even."""\n    ', "\n"),
)  # fmt: skip


def ship(run_dir: Path, folder: Path, note: str = "") -> dict[str, Any]:
    """Writes the shipped model and its card.

    Args:
        run_dir: of a finished training.
        folder: where the model goes; replaced as a whole, when everything is measured.
        note: goes into the card: in what the training differed from the experiment's file.

    Returns:
        What was measured.

    Raises:
        ValueError: the model is too large to be shipped.
    """
    config = OmegaConf.load(run_dir / "config.yaml")
    data = open_prepared(config.data.source)
    draft = folder.with_name(f".measuring-{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _quantize(run_dir / "model", draft, data, int(config.data.seq_length), config.data.fim)
        measured = _measure(draft, run_dir, data)
        (draft / "evaluation.json").write_text(json.dumps(measured, indent=2) + "\n")
        size = sum(path.stat().st_size for path in draft.iterdir())
        (draft / "README.md").write_text(card(measured, size, note))
        if size > MAX_BYTES:
            raise ValueError(
                f"{draft} has {size:,} bytes and may have {MAX_BYTES:,}: train a smaller model"
            )
        publish_folder(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return measured


def _quantize(source: Path, target: Path, data: PreparedData, seq_length: int, fim: str) -> None:
    rows = CodeDataset(
        CodeDataConfig(source="-", seq_length=seq_length, fim=fim), data.tokenizer, data.train
    )
    calibration = Calibration(
        [rows[index] for index in range(CALIBRATION_ROWS)], data.tokenizer.pad_id
    )
    config = QuantizeConfig(bits=4, group=32, embeddings=True, head=True)
    quantize_folder(source, target, config, method="gptq", calibration=calibration)
    write_format(_format(source, data), target)


def _format(folder: Path, data: PreparedData) -> FimFormat:
    format = read_format(folder, data.tokenizer)
    assert format is not None
    return format


def _measure(folder: Path, run_dir: Path, data: PreparedData) -> dict[str, Any]:
    """Measures the model in `folder`, the unquantized one and the baselines."""
    documents = documents_of(data.heldout)
    described = (data.heldout.folder / "heldout.documents.jsonl").read_text().splitlines()
    paths = [f"{row['repository']}/{row['path']}" for row in map(json.loads, described)]
    tasks = draw_holes(documents, paths, data.tokenizer, NUM_HOLES, SEED)
    documents = measured_documents(documents)
    format = _format(folder, data)
    measured: dict[str, Any] = {
        "training": training_facts(run_dir),
        "measured_tokens": sum(map(len, documents)),
    }
    for name, place in (("unquantized", run_dir / "model"), ("shipped", folder)):
        model, tokenizer = load_model(place)
        cost = compression(model, tokenizer, documents)
        with Engine(model, tokenizer) as engine:
            guesses = model_guesses(engine, format, name, tasks)
            measured[name] = {"bits_per_byte": cost.bits_per_byte, **scores(tasks, guesses)}
            if name == "shipped":
                unhealed = model_guesses(engine, format, name, tasks, heals=False)
                measured["without_healing"] = scores(tasks, unhealed)
                measured["samples"] = _samples(engine, format)
        measured["parameters"] = count_parameters(model.config)
    measured |= baselines(data, documents, tasks)
    manifest = read_manifest(data.train.folder)
    measured["corpus"] = manifest["splits"]
    measured["packages"] = manifest["code"]["repositories"]
    return measured


def _samples(engine: Engine, format: FimFormat) -> list[dict[str, str]]:
    from codegeex.complete import Completer, Options
    from codegeex.hole import Hole

    completer = Completer(engine, format, "nano-code")
    told = []
    for prefix, suffix in SAMPLES:
        hole = Hole(prefix=prefix, suffix=suffix, language="python")
        choices = completer.submit(hole, Options(max_new_tokens=48)).outcome().choices
        text = choices[0].text if choices else ""
        told.append({"prefix": prefix, "completion": text, "suffix": suffix})
    return told


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, help="of a finished experiment=nano_code")
    parser.add_argument("--folder", type=Path, default=EMBEDDED["nano-code"])
    parser.add_argument("--note", default="", help="what the card should say of the training")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    measured = ship(args.run_dir, args.folder, args.note)
    print(json.dumps({name: measured[name] for name in ("shipped", "ngram", "next_line")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
