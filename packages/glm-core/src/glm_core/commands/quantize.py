"""``glm quantize``: a folder of weights in 8 or 4 bits, and what that costs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from glm_core.cli import emit

if TYPE_CHECKING:
    from glm_core.quantize.folder import Calibration
    from glm_core.quantize.report import CalibrationText

HELP = "quantize a folder of weights to 8 or 4 bits, and measure what it costs"
EXAMPLE = """\
glm quantize chatglm3-6b out/chatglm3-int4 --bits 4 --group 32
glm quantize nano-text out/nano-int4 --bits 4 --group 32 --evaluate
glm quantize runs/mine/model out/mine-int4 --bits 4 --method gptq --calibration notes.txt
glm quantize --report nano-text runs/mine/model --evaluate installed-text"""

_HELDOUT = "installed-text"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("source", nargs="?", help="name or folder of the model to read")
    parser.add_argument("target", nargs="?", help="folder to write; it must not exist")
    parser.add_argument("--bits", type=int, default=4, help="8 or 4 (default: %(default)s)")
    parser.add_argument(
        "--group",
        type=int,
        default=32,
        help="columns that share a scale: 32, 64 or 128; 0 for one scale per row, as released "
        "weights have it (default: %(default)s)",
    )
    parser.add_argument(
        "--asymmetric", action="store_true", help="a zero point for every scale; better, larger"
    )
    parser.add_argument("--embeddings", action="store_true", help="quantize these too")
    parser.add_argument("--head", action="store_true", help="quantize it too")
    parser.add_argument(
        "--skip",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="leave modules and what is below them: layers.0 'layers.*.mlp.dense_4h_to_h'",
    )
    _add_calibration(parser.add_argument_group("calibration"))
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument(
        "--evaluate",
        nargs="?",
        const=_HELDOUT,
        metavar="TEXT",
        help="bits per byte before and after, on a text file or the held-out split of a corpus "
        f"(alone: {_HELDOUT}, what nano-text is measured on)",
    )
    measuring.add_argument(
        "--report",
        nargs="+",
        metavar="MODEL",
        help="write nothing: bits per byte of these models in every layout",
    )
    reading = parser.add_argument_group("reading and writing")
    reading.add_argument("--from", dest="source_format", metavar="FORMAT", help="(recognised)")
    reading.add_argument("--tokenizer-kind", metavar="KIND", help="where the files do not tell")
    reading.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="(%(default)s)")
    reading.add_argument("--device", default="cpu", help="for texts: auto, cpu, cuda (%(default)s)")


def _add_calibration(group: Any) -> None:
    group.add_argument(
        "--method",
        choices=["rtn", "gptq"],
        default="rtn",
        help="rtn rounds to nearest; gptq rounds so that the layers' outputs for a text change "
        "least (default: %(default)s)",
    )
    group.add_argument(
        "--calibration", metavar="TEXT", help="a text file, or the training split of a corpus"
    )
    group.add_argument("--samples", type=int, default=128, help="of the text (%(default)s)")
    group.add_argument("--window", type=int, default=512, help="tokens of a sample (%(default)s)")
    group.add_argument("--damping", type=float, default=0.01, help="of gptq (default: %(default)s)")
    group.add_argument(
        "--activation-order", action="store_true", help="gptq takes large inputs first"
    )
    group.add_argument("--seed", type=int, default=1234, help="of the choice of samples")


def run(args: argparse.Namespace) -> int:
    """Quantize, or measure."""
    if args.report:
        return _report(args)
    if args.source is None or args.target is None:
        raise ValueError("give the model to read and the folder to write, or --report MODEL")
    return _quantize(args)


def _quantize(args: argparse.Namespace) -> int:
    from glm_core.checkpoint.device_memory import parse_memory
    from glm_core.checkpoint.hub import resolve_model
    from glm_core.quantize.folder import quantize_folder
    from glm_core.quantize.gptq import GptqConfig
    from glm_core.quantize.layout import QuantizeConfig
    from glm_core.quantize.report import as_result, as_table

    config = QuantizeConfig(
        bits=args.bits,
        group=args.group,
        symmetric=not args.asymmetric,
        embeddings=args.embeddings,
        head=args.head,
        skip=tuple(args.skip),
    )
    if args.method == "gptq" and args.calibration is None:
        raise ValueError(
            "--method is gptq, which needs a text to calibrate with: add --calibration TEXT"
        )
    before = None if args.evaluate is None else _bits(args, args.source)  # a wrong text shows now
    done = quantize_folder(
        resolve_model(args.source),
        args.target,
        config,
        method=args.method,
        gptq_config=GptqConfig(damping=args.damping, activation_order=args.activation_order),
        calibration=_calibration(args),
        source_format=args.source_format,
        tokenizer_kind=args.tokenizer_kind,
        max_shard_bytes=parse_memory(args.max_shard_size, "--max-shard-size"),
    )
    result, table = as_result(done), as_table(done)
    if before is not None:
        after = _bits(args, args.target)
        change = after / before - 1
        told = {"text": args.evaluate, "before": before, "after": after, "change": change}
        result["evaluation"] = told
        table += f"\nbits per byte on {args.evaluate}: {before:.4f} -> {after:.4f} ({change:+.2%})"
    emit(args, result, table)
    return 0


def _bits(args: argparse.Namespace, model: str) -> float:
    from glm_core.quantize.report import bits_of

    return bits_of(model, args.evaluate, "keep", args.device, args.tokenizer_kind)


def _report(args: argparse.Namespace) -> int:
    from glm_core.quantize.report import quality, quality_table

    if args.source is not None:
        raise ValueError("--report measures the models behind it and writes nothing: give no other")
    text = args.evaluate or _HELDOUT
    rows = [quality(model, text, _text(args), device=args.device) for model in args.report]
    emit(args, {"text": text, "rows": rows}, quality_table(rows))
    return 0


def _calibration(args: argparse.Namespace) -> Calibration | None:
    from glm_core.quantize.report import calibration_of

    text = _text(args)
    if text is None:
        return None
    return calibration_of(text, args.source, args.tokenizer_kind, args.device)


def _text(args: argparse.Namespace) -> CalibrationText | None:
    from glm_core.quantize.report import CalibrationText

    if args.calibration is None:
        return None
    for name, least in (("samples", 1), ("window", 16)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name} is {getattr(args, name)}: it must be at least {least}")
    return CalibrationText(args.calibration, args.samples, args.window, args.seed)
