"""`glm bench`: measures this repository against what people use today."""

from __future__ import annotations

import argparse
from pathlib import Path

from glm_core.cli import emit, make_folder

HELP = "measure speed and peak memory against transformers"
EXAMPLE = """\
  glm bench train
  glm bench train --shape 10m --precision fp32 --rounds 9"""

SHAPES = ("10m", "50m", "vocab65k")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument("what", choices=["train"], help="train: tokens/s and peak memory")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="default: all of them")
    parser.add_argument("--mode", action="append", choices=("eager", "compiled"))
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each contender")
    parser.add_argument("--steps", type=int, default=3, help="training steps in a round")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--csv", type=Path, default=Path("outputs/bench/train.csv"))


def run(args: argparse.Namespace) -> int:
    """Measures, prints the table and appends the rows to the CSV file."""
    from dataclasses import asdict

    import torch

    from glm_core.bench.train import append_csv, as_table, compare, current_commit
    from glm_core.extras import require
    from glm_core.train.precision import resolve_precision
    from glm_core.train.trainer_config import Precision

    for name in ("rounds", "steps"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}: it must be at least 1")
    if args.threads < 0:
        raise ValueError(f"--threads is {args.threads}: it must be 0 or more")
    make_folder(args.csv.parent, "--csv")
    require("transformers", extra="dev")
    threads = args.threads or torch.get_num_threads()
    precision = resolve_precision(Precision(args.precision), torch.device("cpu")).value
    rows = [
        compare(shape, mode == "compiled", precision, args.rounds, args.steps, threads)
        for shape in args.shape or SHAPES
        for mode in args.mode or ("eager", "compiled")
    ]
    append_csv(rows, args.csv, current_commit())
    emit(args, {"rows": [asdict(row) for row in rows], "csv": str(args.csv)}, as_table(rows))
    return 0
