"""`glm bench`: measures this repository against what people use today."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from glm_core.cli import emit, make_folder

if TYPE_CHECKING:
    from glm_core.train.trainer_config import Precision

HELP = "measure speed and peak memory, of training against transformers"
EXAMPLE = """\
  glm bench train
  glm bench train --shape 10m --precision fp32 --rounds 9
  glm bench profile --shape 50m --mode eager --precision fp32
  glm bench checkpoint --released chatglm2-6b --folder /mnt/scratch/6b   # needs 40 GB of disk
  glm bench offload --released chatglm2-6b --layers 12 --folder /mnt/scratch/6b"""

SHAPES = ("10m", "50m", "vocab65k")
RELEASED = ("chatglm-6b", "chatglm2-6b", "glm-4-9b")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument(
        "what",
        choices=("train", "profile", "checkpoint", "offload"),
        help="train: tokens/s and peak memory; profile: what our step spends its time in; "
        "checkpoint: time and peak memory of converting and loading a released shape; "
        "offload: tokens/s and peak memory by the number of layers that stay in memory",
    )
    parser.add_argument("--shape", action="append", choices=SHAPES, help="default: all of them")
    parser.add_argument("--mode", action="append", choices=("eager", "compiled"))
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each contender")
    parser.add_argument("--steps", type=int, default=3, help="training steps in a round")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--csv", type=Path, help="default: outputs/bench/WHAT.csv")
    parser.add_argument("--released", choices=RELEASED, default="chatglm2-6b", help="its shape")
    parser.add_argument(
        "--folder", type=Path, help="for the checkpoints; deleted afterwards (a temporary one)"
    )
    parser.add_argument("--layers", type=int, default=12, help="offload: how many there are")
    parser.add_argument("--bits", type=int, choices=(16, 8, 4), default=16, help="offload")
    parser.add_argument("--tokens", type=int, default=8, help="offload: written in each setting")


def run(args: argparse.Namespace) -> int:
    """Measures and prints a table; `train` and `checkpoint` append their rows to a CSV file."""
    import torch

    from glm_core.train.precision import resolve_precision
    from glm_core.train.trainer_config import Precision

    for name in ("rounds", "steps", "layers", "tokens"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}: it must be at least 1")
    if args.threads < 0:
        raise ValueError(f"--threads is {args.threads}: it must be 0 or more")
    args.csv = args.csv or Path(f"outputs/bench/{args.what}.csv")
    threads = args.threads or torch.get_num_threads()
    if args.what == "checkpoint":
        return _checkpoint(args)
    if args.what == "offload":
        return _offload(args, threads)
    precision = resolve_precision(Precision(args.precision), torch.device("cpu"))
    measure = _train if args.what == "train" else _profile
    return measure(args, precision, threads)


def _train(args: argparse.Namespace, precision: Precision, threads: int) -> int:
    from dataclasses import asdict

    from glm_core.bench.train import append_csv, as_table, compare, current_commit
    from glm_core.extras import require

    make_folder(args.csv.parent, "--csv")
    require("transformers", extra="dev")
    rows = [
        compare(shape, mode == "compiled", precision.value, args.rounds, args.steps, threads)
        for shape, mode in _workloads(args)
    ]
    append_csv(rows, args.csv, current_commit())
    emit(args, {"rows": [asdict(row) for row in rows], "csv": str(args.csv)}, as_table(rows))
    return 0


def _checkpoint(args: argparse.Namespace) -> int:
    import tempfile
    from dataclasses import asdict

    from glm_core.bench.checkpoint import measure
    from glm_core.bench.train import append_csv, current_commit

    make_folder(args.csv.parent, "--csv")
    if args.folder is not None:
        make_folder(args.folder, "--folder")
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="glm-bench-") as folder:
        rows = measure(args.released, Path(folder))
    append_csv(rows, args.csv, current_commit())
    text = "\n".join(
        f"{row.shape} {row.step}: {row.gigabytes:.1f} GB in {row.seconds:.0f} s, peak "
        f"{row.peak_mib:,.0f} MiB ({row.start_mib:,.0f} at the start, growth "
        f"{row.growth_in_largest_tensors:.2f} times the largest tensor)"
        for row in rows
    )
    emit(args, {"rows": [asdict(row) for row in rows], "csv": str(args.csv)}, text)
    return 0


def _offload(args: argparse.Namespace, threads: int) -> int:
    import tempfile
    from dataclasses import asdict

    from glm_core.bench.offload import as_table, measure
    from glm_core.bench.train import append_csv, current_commit

    make_folder(args.csv.parent, "--csv")
    if args.folder is not None:
        make_folder(args.folder, "--folder")
    bits = None if args.bits == 16 else args.bits
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="glm-bench-") as folder:
        rows = measure(args.released, args.layers, bits, args.tokens, Path(folder), threads)
    append_csv(rows, args.csv, current_commit())
    emit(args, {"rows": [asdict(row) for row in rows], "csv": str(args.csv)}, as_table(rows))
    return 0


def _profile(args: argparse.Namespace, precision: Precision, threads: int) -> int:
    from glm_core.bench.profile import step_shares

    rows = [
        {"shape": shape, "mode": mode, "precision": precision.value, "threads": threads}
        | step_shares(shape, mode == "compiled", precision, threads)
        for shape, mode in _workloads(args)
    ]
    text = "\n".join(
        f"{row['shape']} {row['mode']} {row['precision']}: matrix products "
        f"{row['matrix_products']:.1%}, attention kernel {row['attention_kernel']:.1%}, "
        f"rest {row['rest']:.1%}"
        for row in rows
    )
    emit(args, {"rows": rows}, text)
    return 0


def _workloads(args: argparse.Namespace) -> list[tuple[str, str]]:
    modes = args.mode or ("eager", "compiled")
    return [(shape, mode) for shape in args.shape or SHAPES for mode in modes]
