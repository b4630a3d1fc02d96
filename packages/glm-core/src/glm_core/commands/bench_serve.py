"""The arguments and the run of `glm bench serve`."""

from __future__ import annotations

import argparse

from glm_core.cli import FAILED, OK, emit, make_folder

AGAINST = "llama.cpp,transformers"
SHAPE, LAYERS, PROMPT, TOKENS, ROUNDS = "chatglm3-6b", 2, 128, 64, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that only serve knows."""
    parser.add_argument(
        "--streams", default="1,8,32,64", help="serve: requests under way together, with commas"
    )
    parser.add_argument(
        "--soak",
        type=int,
        metavar="REQUESTS",
        help="serve: instead, send a server of nano-text so many requests of all kinds, wrong and "
        "abandoned ones among them, and check every answer and what is left behind",
    )
    parser.add_argument("--seed", type=int, default=0, help="serve --soak: what is asked when")


def run(args: argparse.Namespace, threads: int) -> int:
    """Measures and prints a table; appends rows to a CSV file. Or soaks."""
    if args.soak is not None:
        return _soak(args)
    from glm_core.bench.serve.contenders import Plan
    from glm_core.bench.serve.measure import ServeRow, measure
    from glm_core.bench.serve.table import as_result, as_table
    from glm_core.bench.train import append_csv, check_columns, current_commit

    make_folder(args.csv.parent, "--csv")
    check_columns(ServeRow, args.csv)
    plan = Plan(
        shape=args.model_shape,
        layers=args.layers,
        streams=_streams(args.streams),
        prompt=args.prompt or PROMPT,
        tokens=args.tokens,
        rounds=args.rounds,
        threads=threads,
    )
    against = AGAINST if args.against is None else args.against
    commit = current_commit()
    rows = measure(plan, [name.strip() for name in against.split(",") if name], args.setup_peers)
    append_csv(rows, args.csv, commit)
    emit(args, as_result(rows, commit, args.csv), as_table(rows))
    return OK


def _soak(args: argparse.Namespace) -> int:
    from glm_core.bench.serve.soak import soak
    from glm_core.bench.serve.soak_report import as_result, as_table

    report = soak(args.soak, args.seed)
    emit(args, as_result(report), as_table(report))
    return OK if report.is_good else FAILED


def _streams(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--streams is {text!r}: write numbers, as in 1,8,32") from error
