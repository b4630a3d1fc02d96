"""Flags that subcommands of ``codegeex evaluate`` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_core.infer.sampling import SamplingConfig

_SEVERAL_TEMPERATURE, _TOP_P = 0.8, 0.95
"""Of HumanEval-X's tables: pass@10 and pass@100 at 0.8; pass@1 at 0.2, or greedy."""


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


def add_sampling_arguments(parser: argparse.ArgumentParser, max_new_tokens: int) -> None:
    """Declares how a model answers.

    Args:
        parser: of the subcommand.
        max_new_tokens: longest answer where nothing else is said.
    """
    group = parser.add_argument_group("answers")
    group.add_argument("--samples", type=int, default=1, help="per problem (default: %(default)s)")
    group.add_argument(
        "--temperature",
        type=float,
        help=f"0 takes the most probable token (0; {_SEVERAL_TEMPERATURE} for several samples)",
    )
    group.add_argument(
        "--top-p", type=float, default=_TOP_P, help="with a temperature (default: %(default)s)"
    )
    group.add_argument("--top-k", type=int, default=0, help="0 keeps all (default: %(default)s)")
    group.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    group.add_argument(
        "--max-new-tokens",
        type=int,
        default=max_new_tokens,
        help="longest answer (default: %(default)s)",
    )
    group.add_argument(
        "--parallel", type=int, default=16, help="answers at a time (default: %(default)s)"
    )


def sampling_config(args: argparse.Namespace) -> SamplingConfig:
    """Returns how a model answers.

    Raises:
        ValueError: a flag is wrong, or several samples without chance are wanted.
    """
    from glm_core.infer.sampling import SamplingConfig

    if args.samples < 1:
        raise ValueError(f"--samples is {args.samples}: it must be at least 1")
    temperature = args.temperature
    if temperature is None:
        temperature = _SEVERAL_TEMPERATURE if args.samples > 1 else 0.0
    if args.samples > 1 and temperature == 0:
        raise ValueError(
            f"--samples is {args.samples}, but without chance all samples are the same: give "
            "--temperature above 0"
        )
    return SamplingConfig(
        max_new_tokens=args.max_new_tokens,
        temperature=temperature,
        top_p=args.top_p if temperature else 1.0,
        top_k=args.top_k if temperature else 0,
        seed=args.seed,
    )
