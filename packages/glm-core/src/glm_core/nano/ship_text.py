"""Turns a finished run of `experiment=nano_text` into the shipped nano-text model.

    python -m glm_core.nano.ship_text outputs/nano_text

Stores the weights as int8, measures them as shipped, beside the unquantized ones and the baselines,
and writes the card. Every number of the card is measured here or read from the run's own files.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from glm_core.checkpoint.files import publish_folder
from glm_core.checkpoint.loading import load_model
from glm_core.checkpoint.pretrained import EMBEDDED, save_pretrained
from glm_core.data.config import DataConfig
from glm_core.data.prepare import PreparedData, prepare_data, read_manifest
from glm_core.evaluate.report import EvaluationConfig, as_table, evaluate
from glm_core.infer import TextGenerator
from glm_core.train.callbacks import format_seconds
from glm_core.train.metrics_log import read_metrics

logger = logging.getLogger(__name__)

MAX_BYTES = 10_000_000
SAMPLES = (
    "The [MASK] statement wraps a block.",
    "Returns the [MASK] of the array along the given axis.",
    "Raises a ValueError if the [MASK] is not a [MASK] number.",
    "Open the file for [MASK] and return its contents as a string.",
    "The optimizer updates the [MASK] of the model after each step.",
)


def ship(run_dir: Path, folder: Path, source: str, note: str = "") -> dict[str, Any]:
    """Writes the shipped model and its card.

    Args:
        run_dir: of a finished training.
        folder: where the model goes; replaced as a whole, when everything is measured.
        source: the corpus of the training, as `data.source` names it.
        note: goes into the card: in what the training differed from the experiment's file.

    Returns:
        What was measured.

    Raises:
        ValueError: the model is too large to be shipped.
    """
    model, tokenizer = load_model(run_dir / "model")
    data = prepare_data(DataConfig(source=source, tokenizer=str(run_dir / "model")))
    unquantized = evaluate(TextGenerator(model, tokenizer), data, EvaluationConfig())
    draft = folder.with_name(f".measuring-{folder.name}")
    try:
        save_pretrained(model, tokenizer, draft, quantize="int8")
        measured = _measure(draft, run_dir, data, unquantized, note)
        publish_folder(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return measured


def _measure(
    folder: Path, run_dir: Path, data: PreparedData, unquantized: dict[str, Any], note: str
) -> dict[str, Any]:
    """Measures the model in `folder` and writes its card there."""
    generator = TextGenerator(*load_model(folder))
    shipped = evaluate(generator, data, EvaluationConfig(baselines=True))
    measured = {
        "shipped": {"model": "nano-text", "data": "installed-text", **shipped},
        "unquantized": unquantized,
        "training": training_facts(run_dir),
        "corpus": read_manifest(data.train.folder)["splits"],
        "fills": [generator.fill(text).text for text in SAMPLES],
    }
    (folder / "evaluation.json").write_text(json.dumps(measured, indent=2) + "\n")
    size = sum(path.stat().st_size for path in folder.iterdir())
    (folder / "README.md").write_text(card(measured, size, note))
    if size > MAX_BYTES:
        raise ValueError(
            f"{folder} has {size:,} bytes and may have {MAX_BYTES:,}: train a smaller model"
        )
    return measured


def training_facts(run_dir: Path) -> dict[str, Any]:
    """Steps, tokens, seconds and last losses, from the run's metrics."""
    rows = read_metrics(run_dir / "metrics.jsonl")
    tokens = seconds = 0.0
    for before, row in zip([{"step": 0, "samples": 0}, *rows], rows, strict=False):
        new = (row["samples"] - before["samples"]) * _tokens_per_sample(run_dir)
        tokens += new
        seconds += new / row["tokens_per_second"]
    held_out = [row["eval_loss"] for row in rows if "eval_loss" in row]
    if not held_out:
        raise ValueError(f"{run_dir} has no held-out loss: train with trainer.eval_every above 0")
    return {
        "steps": rows[-1]["step"],
        "tokens": int(tokens),
        "seconds": round(seconds),
        "loss": rows[-1]["loss"],
        "heldout_loss": held_out[-1],
        "torch": torch.__version__,
        "processor": _processor(),
    }


def _tokens_per_sample(run_dir: Path) -> int:
    from omegaconf import OmegaConf

    return int(OmegaConf.load(run_dir / "config.yaml").data.seq_length)


def _processor() -> str:
    features = Path("/proc/cpuinfo")
    flags = features.read_text() if features.exists() else ""
    amx = ", AMX" if "amx_bf16" in flags else ""
    return f"CPU {torch.backends.cpu.get_cpu_capability()}{amx}"


def card(measured: dict[str, Any], size: int, note: str = "") -> str:
    """The model's README.

    Args:
        measured: as `ship` returns it.
        size: bytes of the shipped folder.
        note: a paragraph on the training; may be empty.
    """
    training, corpus, unquantized = (
        measured["training"],
        measured["corpus"],
        measured["unquantized"],
    )
    fills = "\n".join(
        f"- {text}\n  -> {filled}" for text, filled in zip(SAMPLES, measured["fills"], strict=True)
    )
    return f"""# nano-text

A GLM of {measured["shipped"]["parameters"] / 1e6:.1f} M parameters that fills blanks and continues
English technical prose. It exists so that everything in this repository can be tried on a machine
without a network. It knows what docstrings sound like and nothing beyond; do not trust what it
says.

## Training

| | |
|---|---|
| command | `glm train experiment=nano_text run_dir=outputs/nano_text` |
| shipped by | `python -m glm_core.nano.ship_text outputs/nano_text` |
| data | `installed-text`: pydoc topics, docstrings and descriptions of the installed packages |
| training split | {_split(corpus["train"])} |
| held-out split | {_split(corpus["heldout"])} |
| steps, tokens | {training["steps"]:,} steps, {training["tokens"] / 1e6:.1f} M tokens |
| time | {format_seconds(training["seconds"])}, {training["processor"]}, torch {training["torch"]} |
| last loss | training {training["loss"]:.3f}, held-out {training["heldout_loss"]:.3f} nats |
| stored | int8 per row with its scale, {size / 1e6:.2f} MB with tokenizer and this card's data |

Documents are held out by a hash of their names, so that another version of a package cannot bring
held-out text into training.
{f"{chr(10)}{note}{chr(10)}" if note else ""}
## Held-out results

As shipped, by `glm evaluate --model nano-text --baselines` on the corpus above. Everything is also
in `evaluation.json`.

```
{as_table(measured["shipped"])}
```

Before int8: {unquantized["bits_per_byte"]:.4f} bits per byte; as shipped:
{measured["shipped"]["bits_per_byte"]:.4f}.

The n-gram is an interpolated Kneser-Ney model of order 5, counted on the same training tokens with
the same tokenizer. LZMA compresses the held-out text after the training text.

## How it fills blanks

Greedy, as they come:

{fills}
"""


def _split(split: dict[str, Any]) -> str:
    return (
        f"{split['documents']:,} documents, {split['bytes'] / 1e6:.2f} MB, "
        f"{split['tokens']:,} tokens, sha256 `{split['sha256'][:16]}`"
    )


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, help="of a finished glm train experiment=nano_text")
    parser.add_argument("--folder", type=Path, default=EMBEDDED["nano-text"])
    parser.add_argument("--source", default="installed-text", help="as data.source of the run")
    parser.add_argument("--note", default="", help="what the card should say of the training")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    measured = ship(args.run_dir, args.folder, args.source, args.note)
    print(as_table(measured["shipped"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
