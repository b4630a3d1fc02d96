"""`glm bench`: measures this repository against what people use today."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from glm_core.cli import emit, make_folder
from glm_core.commands import bench_kernels, bench_serve

if TYPE_CHECKING:
    from glm_core.train.trainer_config import Precision

HELP = "measure speed and peak memory, against what people use today"
EXAMPLE = """\
  glm bench train
  glm bench train --shape 10m --precision fp32 --rounds 9
  glm bench profile --shape 50m --mode eager --precision fp32
  glm bench checkpoint --released chatglm2-6b --folder /mnt/scratch/6b   # needs 40 GB of disk
  glm bench offload --released chatglm2-6b --layers 12 --folder /mnt/scratch/6b
  glm bench decode --model-shape chatglm3-6b --against llama.cpp,torch-int4,transformers
  glm bench decode --setup-peers --against llama.cpp,chatglm.cpp   # installs them into .bench/
  glm bench decode --prompt 512 --against llama.cpp
  glm bench decode --device cuda --tokens 128
  glm bench decode --model-shape 10m --against transformers --bits 32
  glm bench kernels --dtype fp32 --dtype bf16 --csv docs/benchmarks/kernels.csv
  glm bench kernels --only linear_int4,rms_norm --rounds 20 --dtype fp32
  glm bench kernels --tune   # once per device
  glm bench serve --setup-peers --csv docs/benchmarks/serve.csv   # against llama.cpp's server
  glm bench serve --model-shape 10m --layers 6 --streams 1,8 --against ""
  glm bench serve --soak 10000"""

SHAPES = ("10m", "50m", "vocab65k")
RELEASED = ("chatglm-6b", "chatglm2-6b", "glm-4-9b")
ROUNDS = 5
DEFAULTS: dict[str, dict[str, int]] = {
    "decode": {"layers": 0, "bits": 4, "tokens": 16},
    "kernels": {"rounds": 9},
    "serve": {
        "layers": bench_serve.LAYERS,
        "tokens": bench_serve.TOKENS,
        "rounds": bench_serve.ROUNDS,
    },
    "offload": {"layers": 12, "bits": 16, "tokens": 8},
}
"""What a flag is where it is not given, by what is measured."""
AGAINST = {"cpu": "llama.cpp,torch-int4,transformers", "cuda": "compiled-int4,compiled-bf16"}
"""Whom decoding is compared with, by device."""
CHOICES = {"decode": (32, 8, 4), "offload": (16, 8, 4)}
"""Bits of a weight."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument(
        "what",
        choices=("train", "profile", "checkpoint", "offload", "decode", "kernels", "serve"),
        help="train: tokens/s and peak memory; profile: what our step spends its time in; "
        "checkpoint: time and peak memory of converting and loading a released shape; "
        "offload: tokens/s and peak memory by the number of layers that stay in memory; "
        "decode: tokens/s with quantized weights against llama.cpp and others; "
        "kernels: every kernel against torch, torch.compile and the memory's bandwidth; "
        "serve: our server under load against llama.cpp's, and its soak",
    )
    parser.add_argument("--shape", action="append", choices=SHAPES, help="default: all of them")
    parser.add_argument("--mode", action="append", choices=("eager", "compiled"))
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"measured rounds of each contender ({ROUNDS}; kernels: 9; serve: 3)",
    )
    parser.add_argument("--steps", type=int, default=3, help="training steps in a round")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--csv", type=Path, help="default: outputs/bench/WHAT.csv")
    parser.add_argument("--released", choices=RELEASED, default="chatglm2-6b", help="its shape")
    parser.add_argument(
        "--folder", type=Path, help="for the checkpoints; deleted afterwards (a temporary one)"
    )
    parser.add_argument(
        "--layers",
        type=int,
        help="how many there are; offload: 12, decode: all of the shape's, with --prompt 8 at "
        "most; serve: 2",
    )
    parser.add_argument(
        "--bits", type=int, choices=(32, 16, 8, 4), help="of a weight; offload: 16, decode: 4"
    )
    parser.add_argument(
        "--tokens",
        type=int,
        help="offload: written in each setting; decode: in each round; serve: in each answer (64)",
    )
    _add_decode_arguments(parser)
    bench_kernels.add_arguments(parser)
    bench_serve.add_arguments(parser)


def _add_decode_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model-shape",
        default="chatglm3-6b",
        help="decode, serve: a published model, 10m or 50m",
    )
    parser.add_argument(
        "--against",
        help="decode: which of llama.cpp, chatglm.cpp, torch-int4 and transformers (all but "
        "chatglm.cpp), with commas between; cuda: compiled-int4 and compiled-bf16 (both); serve: "
        "llama.cpp and transformers (both)",
    )
    parser.add_argument(
        "--setup-peers",
        action="store_true",
        help="decode: first install llama.cpp and chatglm.cpp, where --against names them and they "
        "are missing, into throw-away environments below .bench/ (with pip; needs a C++ compiler); "
        "serve: llama.cpp, and build its server from the same sources",
    )
    parser.add_argument("--batch", type=int, default=1, help="decode: texts written together")
    parser.add_argument(
        "--prompt",
        type=int,
        metavar="TOKENS",
        help="decode: measure reading a prompt of so many tokens, not writing; serve: mean number "
        "of tokens of a prompt (128)",
    )
    parser.add_argument(
        "--no-amx", action="store_true", help="decode: no contender may use the processor's AMX"
    )


def run(args: argparse.Namespace) -> int:
    """Measures and prints a table; `train` and `checkpoint` append their rows to a CSV file."""
    import torch

    from glm_core.train.precision import resolve_precision
    from glm_core.train.trainer_config import Precision

    for name in ("rounds", "steps", "layers", "tokens", "batch", "prompt", "soak"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}: it must be at least 1")
    for name, value in ({"rounds": ROUNDS} | DEFAULTS.get(args.what, {})).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.bits not in CHOICES.get(args.what, (args.bits,)):
        raise ValueError(
            f"--bits is {args.bits}: bench {args.what} takes one of "
            f"{', '.join(map(str, CHOICES[args.what]))}"
        )
    if args.threads < 0:
        raise ValueError(f"--threads is {args.threads}: it must be 0 or more")
    args.csv = args.csv or Path(f"outputs/bench/{args.what}.csv")
    threads = args.threads or torch.get_num_threads()
    if args.what == "checkpoint":
        return _checkpoint(args)
    if args.what == "offload":
        return _offload(args, threads)
    if args.what == "decode":
        return _decode(args, threads)
    if args.what == "kernels":
        return bench_kernels.run(args, threads)
    if args.what == "serve":
        return bench_serve.run(args, threads)
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


def _decode(args: argparse.Namespace, threads: int) -> int:
    from glm_core.bench.decode import DecodeRow, Plan, measure
    from glm_core.bench.decode_table import as_result, as_table
    from glm_core.bench.train import append_csv, check_columns, current_commit
    from glm_core.train.precision import resolve_device

    device = resolve_device("cpu" if args.device == "auto" else args.device, "--device").type
    make_folder(args.csv.parent, "--csv")
    check_columns(DecodeRow, args.csv)
    plan = Plan(
        shape=args.model_shape,
        layers=args.layers,
        batch=args.batch,
        prompt=args.prompt or 0,
        rounds=args.rounds,
        tokens=args.tokens,
        threads=threads,
        bits=args.bits,
        device=device,
        with_amx=not args.no_amx,
    )
    against = AGAINST[device] if args.against is None else args.against
    peers = [name.strip() for name in against.split(",") if name.strip()]
    commit = current_commit()
    rows = measure(plan, peers, args.setup_peers)
    append_csv(rows, args.csv, commit)
    emit(args, as_result(rows, commit, args.csv), as_table(rows))
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
