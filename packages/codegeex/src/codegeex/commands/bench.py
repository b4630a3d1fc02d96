"""``codegeex bench``: the round trip of an editor, against what people use today."""

from __future__ import annotations

import argparse
from pathlib import Path

from glm_core.cli import emit, make_folder

HELP = "measure the round trip of an editor, against what people use today"
EXAMPLE = """\
codegeex bench editor
codegeex bench editor --model ./my-model --edits 50 --rounds 1
codegeex bench editor --setup-peers --against llama.cpp --csv docs/benchmarks/editor.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "what",
        choices=("editor",),
        help="editor: a file is typed, and after every keystroke a line is asked for over HTTP",
    )
    parser.add_argument("--model", default="nano-code", help="name or folder (%(default)s)")
    parser.add_argument("--edits", type=int, default=200, help="keystrokes of a round (200)")
    parser.add_argument("--rounds", type=int, default=3, help="each at other places (3)")
    parser.add_argument("--new-tokens", type=int, default=16, help="longest answer (16)")
    parser.add_argument("--seed", type=int, default=0, help="of the file and the places (0)")
    parser.add_argument("--file", type=Path, help="to be typed (one of the standard library)")
    parser.add_argument("--threads", type=int, default=2, help="of each server's model (2)")
    parser.add_argument("--context", type=int, metavar="TOKENS", help="as codegeex serve takes it")
    parser.add_argument(
        "--against", default="", help="llama.cpp: its server, with the same model, by turns (none)"
    )
    parser.add_argument(
        "--setup-peers",
        action="store_true",
        help="first install llama.cpp and build its server below .bench/, where they are missing "
        "(with pip; needs a C++ compiler)",
    )
    parser.add_argument("--csv", type=Path, help="append the rows to this file (none)")


def run(args: argparse.Namespace) -> int:
    """Measure and print a table."""
    from codegeex.bench.measure import measure
    from codegeex.bench.plan import Plan
    from codegeex.bench.table import EditorRow, as_result, as_table, rows_of
    from glm_core.bench.train import append_csv, check_columns, current_commit

    if args.csv is not None:
        make_folder(args.csv.parent, "--csv")
        check_columns(EditorRow, args.csv)
    plan = Plan(
        model=args.model,
        edits=args.edits,
        rounds=args.rounds,
        new_tokens=args.new_tokens,
        seed=args.seed,
        file=args.file,
        threads=args.threads,
        context=args.context,
    )
    commit = current_commit()
    against = [name.strip() for name in args.against.split(",") if name.strip()]
    found = measure(plan, against, args.setup_peers)
    rows = rows_of(found)
    if args.csv is not None:
        append_csv(rows, args.csv, commit)
    emit(args, as_result(found, rows, commit, args.csv), as_table(found, rows))
    return 0
