"""``codegeex evaluate``: HumanEval-X and infilling benchmarks."""

from __future__ import annotations

import argparse

from codegeex.commands import (
    evaluate_execute,
    evaluate_generate,
    evaluate_infilling,
    evaluate_overview,
)

HELP = "HumanEval-X and infilling benchmarks; runs programs in a sandbox"
EXAMPLE = """\
  codegeex evaluate                                   # what can be evaluated on this machine
  codegeex evaluate check --allow-execution           # ground truth passes, wrong answers fail
  codegeex evaluate generate --model nano-code --language python --samples 20 --out py.jsonl
  codegeex evaluate execute py.jsonl --allow-execution
  codegeex evaluate score py.results.jsonl --k 1 --k 10
  codegeex evaluate infilling FOLDER --model nano-code
  codegeex evaluate execute samples.jsonl --problems humaneval_go.jsonl.gz --allow-execution"""

_PARTS = (evaluate_generate, evaluate_infilling, evaluate_execute)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommands, each with its flags."""
    parser.set_defaults(do=evaluate_overview.run)
    parts = parser.add_subparsers(title="subcommands", metavar="WHAT")
    for module in _PARTS:
        module.add_parsers(parts)


def run(args: argparse.Namespace) -> int:
    """Does what was named."""
    return int(args.do(args))
