"""``codegeex prepare``: training data made of source code."""

from __future__ import annotations

import argparse
from typing import Any

from glm_core.cli import emit

HELP = "make training data of source code: filter, deduplicate, split, tokenise"
EXAMPLE = """\
codegeex prepare ~/src/project-a ~/src/project-b --out data/ours
codegeex prepare installed-code --out data/installed --vocab-size 8192
codegeex prepare corpus.jsonl.gz --out data/corpus --languages python,rust"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a folder, a source file, a .jsonl or .jsonl.gz file, installed-code or stdlib-code",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "--tokenizer",
        default="train",
        metavar="NAME",
        help="train, a tokenizer's folder, or a model that comes with the package (train)",
    )
    parser.add_argument(
        "--vocab-size", type=int, default=8192, help="ids of a new tokenizer (8192)"
    )
    parser.add_argument(
        "--heldout-fraction", type=float, default=0.01, metavar="SHARE", help="(default: 0.01)"
    )
    parser.add_argument(
        "--split-by",
        choices=["auto", "file", "repository"],
        default="auto",
        help="what is held out as a whole (auto: repositories where there are at least 200)",
    )
    parser.add_argument(
        "--languages", default="", metavar="A,B", help="only these (default: all that are known)"
    )
    parser.add_argument("--min-bytes", type=int, default=1_000, help="shortest file (1000)")
    parser.add_argument("--max-bytes", type=int, default=100_000, help="longest file (100000)")
    parser.add_argument(
        "--near-duplicates",
        type=float,
        default=0.8,
        metavar="SIMILARITY",
        help="from which two files count as one; 0 compares none (0.8)",
    )
    parser.add_argument("--tests", action="store_true", help="read tests too")
    parser.add_argument("--vendored", action="store_true", help="read vendored copies too")
    parser.add_argument("--generated", action="store_true", help="keep generated files")
    parser.add_argument(
        "--licence-headers", action="store_true", help="keep the notices at the top of files"
    )
    parser.add_argument(
        "--copyleft",
        action="store_true",
        help="keep files whose header names a copyleft or proprietary licence",
    )
    parser.add_argument(
        "--no-path-line", action="store_true", help="no comment with its path before each file"
    )
    parser.add_argument(
        "--decontaminate",
        action="append",
        default=[],
        metavar="PATH",
        help="a HumanEval-X file, or a folder of them: text with their problems is left out; may "
        "be given several times",
    )
    parser.add_argument("--workers", type=int, default=0, help="processes (0: every core)")


def run(args: argparse.Namespace) -> int:
    """Prepare, and say what came out."""
    from codegeex.data.config import PrepareConfig, SplitBy
    from codegeex.data.prepare import prepare_code
    from glm_core.data.prepare import read_manifest

    prepare_code(
        PrepareConfig(
            sources=args.sources,
            out=args.out,
            tokenizer=args.tokenizer,
            vocab_size=args.vocab_size,
            heldout_fraction=args.heldout_fraction,
            split_by=SplitBy(args.split_by),
            languages=[name for name in args.languages.split(",") if name.strip()],
            min_bytes=args.min_bytes,
            max_bytes=args.max_bytes,
            near_duplicates=args.near_duplicates,
            tests=args.tests,
            vendored=args.vendored,
            generated=args.generated,
            licence_headers=args.licence_headers,
            copyleft=args.copyleft,
            path_line=not args.no_path_line,
            decontaminate=args.decontaminate,
            workers=args.workers,
        )
    )
    manifest = read_manifest(args.out)
    result = {"folder": args.out, "splits": manifest["splits"], **manifest["code"]}
    emit(args, result, _table(args.out, manifest))
    return 0


def _table(folder: str, manifest: dict[str, Any]) -> str:
    from codegeex.data.reasons import EXPLAINED, Reason

    lines = []
    for split, row in manifest["splits"].items():
        lines.append(
            f"{split}: {row['documents']:,} documents, {row['bytes'] / 1e6:.1f} MB, "
            f"{row['tokens']:,} tokens"
        )
    code = manifest["code"]
    lines.append(f"{len(code['repositories'])} repositories, split by {code['split_by']}")
    if code["packages_left_out"]:
        names = ", ".join(package["name"] for package in code["packages_left_out"])
        lines.append(f"packages left out for their licences: {names}")
    if code["contaminated"]:
        told = ", ".join(f"{problem} in {name}" for problem, name in code["contaminated"][:5])
        more = len(code["contaminated"]) - 5
        lines.append(f"benchmark problems: {told}{f' and {more} more' if more > 0 else ''}")
    if code["dropped"]:
        lines.append("left out:")
    for name, (files, size) in code["dropped"].items():
        lines.append(f"  {files:>8,}  {size / 1e6:>9.1f} MB  {EXPLAINED[Reason(name)]}")
    return "\n".join([*lines, folder])
