"""`glm bench kernels`: every kernel against what people use today, and `--tune`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from glm_core.cli import emit, make_folder

if TYPE_CHECKING:
    import torch

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument(
        "--only",
        default="",
        metavar="PATTERN",
        help="kernels: ops whose name contains this or fits it (*, ?), with commas between",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: for kernels a GPU where there is one, for decode the CPU",
    )
    parser.add_argument(
        "--dtype",
        action="append",
        choices=list(DTYPES),
        help="kernels: of the fused ops, several times for several (fp32; on a GPU bf16)",
    )
    parser.add_argument(
        "--no-compile",
        action="store_true",
        help="kernels: leave torch.compile out: half of the time",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="kernels: instead of comparing, measure on this device what the automatic choices "
        "choose among, and write the table that they read",
    )


def run(args: argparse.Namespace, threads: int) -> int:
    """Measures, prints a table and appends the rows to a CSV file."""
    import torch

    from glm_core.bench.kernels.report import as_result, as_table
    from glm_core.bench.kernels.row import KernelRow
    from glm_core.bench.kernels.run import Plan, measure
    from glm_core.bench.train import append_csv, check_columns, current_commit
    from glm_core.train.precision import resolve_device

    device = resolve_device(args.device, "--device")
    if args.tune:
        return _tune(args, device, threads)
    names = args.dtype or ["bf16" if device.type == "cuda" else "fp32"]
    plan = Plan(
        device=device,
        dtypes=tuple(getattr(torch, DTYPES[name]) for name in dict.fromkeys(names)),
        only=args.only,
        rounds=args.rounds,
        threads=threads,
        with_compile=not args.no_compile,
    )
    make_folder(args.csv.parent, "--csv")
    check_columns(KernelRow, args.csv)
    commit, rows = current_commit(), []
    for some in measure(plan):
        append_csv(some, args.csv, commit)  # an interrupted run keeps what it has measured
        rows += some
    emit(args, as_result(rows, commit, args.csv), as_table(rows))
    return 0


def _tune(args: argparse.Namespace, device: torch.device, threads: int) -> int:
    import torch

    from glm_core.bench.tune import tune

    torch.set_num_threads(threads)
    path = tune(device)
    emit(args, {"table": str(path)}, f"the automatic choices on this {device.type} read {path}")
    return 0
