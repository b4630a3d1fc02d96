"""Flags that subcommands of ``codegeex evaluate`` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def add_part(
    parts: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    told: str,
    do: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """Declares a subcommand.

    Args:
        parts: where.
        name: what is typed.
        told: one line of help.
        do: what it does.
    """
    parser = parts.add_parser(name, help=told, description=told[:1].upper() + told[1:] + ".")
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,  # the flag may stand before the subcommand, too
        help="print one JSON object on stdout; logs on stderr",
    )
    parser.set_defaults(do=do)
    return parser


def add_problem_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares which problems."""
    parser.add_argument(
        "--problems",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="official .jsonl or .jsonl.gz of HumanEval-X; repeats (our own few problems)",
    )
    parser.add_argument(
        "--language", action="append", default=[], help="only problems in this one; repeats (all)"
    )
