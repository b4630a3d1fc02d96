"""`glm explain`: what the model gets to see of a text, column by column."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from glm_core.cli import emit
from glm_core.commands.given_text import given_text

if TYPE_CHECKING:
    from glm_core.tokenizer.protocol import Tokenizer

HELP = "show tokens, positions, mask and labels of a training sample"
EXAMPLE = """\
glm explain "The with statement wraps a block. It closes the file." --seed 3
glm explain --mode gmask "A context manager is an object with two methods."
glm explain "The [MASK] statement wraps a [MASK]." --json"""

MODES = ("mask", "sentence", "gmask", "causal")
DEFAULT_MODEL = "nano-text"

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument(
        "text",
        help="what to explain; with [MASK], [sMASK] or [gMASK] in it: as a prompt, otherwise as a "
        "training sample with random blanks; - reads standard input",
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="mask",
        help="which parts become blanks: short spans, whole sentences, one long span, or none "
        "(default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides which (default: %(default)s)")
    parser.add_argument(
        "--mask-ratio",
        type=float,
        default=0.15,
        help="share of the text that blanks cover in modes mask and sentence "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        help="name or folder whose tokenizer is used (default: nano-text, or single bytes where "
        "it is not installed)",
    )


def run(args: argparse.Namespace) -> int:
    """Explains the text and prints it."""
    from glm_core.data.explain import explain_prompt, explain_training
    from glm_core.infer.blanks import check_spelling, has_marker

    if not 0 < args.mask_ratio <= 1:
        raise ValueError(f"--mask-ratio is {args.mask_ratio}: it must be above 0 and at most 1")
    if args.seed < 0:
        raise ValueError(f"--seed is {args.seed}: it must be 0 or more")
    text = given_text(args.text)
    check_spelling(text)
    tokenizer = _tokenizer(args.model)
    if has_marker(text):
        explanation = explain_prompt(tokenizer, text)
        about = {"kind": "prompt", "text": text}
    else:
        explanation = explain_training(tokenizer, text, args.mode, args.seed, args.mask_ratio)
        about = {"kind": "training", "text": text, "mode": args.mode, "seed": args.seed}
    emit(args, {**about, **explanation.as_json()}, explanation.as_text())
    return 0


def _tokenizer(model: str | None) -> Tokenizer:
    """The tokenizer of a model folder, of a tokenizer folder, or of the embedded model."""
    from glm_core.checkpoint.hub import resolve_model
    from glm_core.checkpoint.pretrained import EMBEDDED
    from glm_core.tokenizer.byte_bpe import MIN_VOCAB_SIZE, ByteBPETokenizer
    from glm_core.tokenizer.loading import load_tokenizer

    if model is None and not EMBEDDED[DEFAULT_MODEL].is_dir():
        logger.info("%s is not installed: every byte is a token; choose --model", DEFAULT_MODEL)
        return ByteBPETokenizer.train([], MIN_VOCAB_SIZE)
    return load_tokenizer(resolve_model(model or DEFAULT_MODEL, weights=False))
