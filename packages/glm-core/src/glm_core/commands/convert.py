"""``glm convert``: from one released checkpoint format to another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from glm_core.cli import emit

if TYPE_CHECKING:
    import torch

HELP = "convert released checkpoints from one format to another"
EXAMPLE = """\
glm convert chatglm3-6b out/chatglm3 --to glm-lab
glm convert glm-130b-sat out/glm-130b-tp4 --to glm-130b --tp 4
glm convert chatglm3-6b out/chatglm3-int4 --to chatglm2 --quantize int4
glm convert --list"""

_BITS = {"keep": None, "none": 0, "int8": 8, "int4": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("source", nargs="?", help="folder (or single file) to read")
    parser.add_argument("target", nargs="?", help="folder to write; it must not exist")
    parser.add_argument(
        "--from", dest="source_format", metavar="FORMAT", help="default: recognised"
    )
    parser.add_argument("--to", metavar="FORMAT", default="glm-lab", help="(default: %(default)s)")
    parser.add_argument(
        "--tokenizer-kind",
        metavar="KIND",
        help="where the source's files do not tell, such as chatglm3",
    )
    parser.add_argument("--list", action="store_true", help="list the formats and leave")
    parser.add_argument("--tp", type=int, default=1, help="tensor-parallel files to write (1)")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="default: as it is stored"
    )
    parser.add_argument(
        "--quantize",
        choices=list(_BITS),
        default="keep",
        help="how the linears are stored; none turns quantized rows into numbers (default: keep)",
    )
    parser.add_argument(
        "--max-shard-size",
        default="5GB",
        metavar="SIZE",
        help="largest file (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    from glm_core.checkpoint.formats import FORMATS

    if args.list:
        width = max(map(len, FORMATS))
        listing = "\n".join(f"{name:<{width}}  {f.holds}" for name, f in FORMATS.items())
        emit(args, {name: format.holds for name, format in FORMATS.items()}, listing)
        return 0
    if args.source is None or args.target is None:
        raise ValueError("give the folder to read and the folder to write, or --list")
    return _convert(args)


def _convert(args: argparse.Namespace) -> int:
    import time

    from glm_core.checkpoint.convert import convert
    from glm_core.checkpoint.device_memory import parse_memory, readable

    begin = time.monotonic()
    done = convert(
        args.source,
        args.target,
        args.to,
        source_format=args.source_format,
        ranks=args.tp,
        dtype=_dtype(args.dtype),
        bits=_BITS[args.quantize],
        tokenizer_kind=args.tokenizer_kind,
        max_shard_bytes=parse_memory(args.max_shard_size, "--max-shard-size"),
    )
    seconds = time.monotonic() - begin
    result = {
        "folder": str(done.folder),
        "from": done.source_format,
        "to": done.format,
        "parameters": done.parameters,
        "bytes": done.bytes,
        "seconds": round(seconds, 2),
    }
    files = len(list(Path(done.folder).glob("*.safetensors")))
    emit(
        args,
        result | {"files": files},
        f"{done.source_format} -> {done.format}: {done.parameters:,} parameters, "
        f"{readable(done.bytes)} in {files} file{'s' * (files > 1)}, {seconds:.1f} s: "
        f"{done.folder}",
    )
    return 0


def _dtype(name: str | None) -> torch.dtype | None:
    import torch

    return None if name is None else getattr(torch, name)
