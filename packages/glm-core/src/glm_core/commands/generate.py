"""``glm generate``: fills the blanks of a text, or continues it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_core.cli import emit
from glm_core.commands.given_text import given_text
from glm_core.commands.model_arguments import add_model_arguments, load_named_model

if TYPE_CHECKING:
    from glm_core.infer import Filled, SamplingConfig, TextGenerator
    from glm_core.infer.grammar import Grammar

HELP = "fill the blanks of a text, or continue it"
EXAMPLE = """\
glm generate --model nano-text "The [MASK] statement wraps a block."
glm generate --model nano-text "A context manager" --max-new-tokens 40 --seed 3
glm generate --model nano-text "The answer is" --regex " (yes|no)\\."
echo "Returns the [MASK] of the list." | glm generate --num-beams 4 -"""

CONTINUE_TEMPERATURE, CONTINUE_TOP_P = 0.8, 0.9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags. Those of `SamplingConfig` have its names; without a flag its default."""
    parser.add_argument(
        "prompt",
        help="text; [MASK] is a short blank, [sMASK] a blank of sentences, [gMASK] a long one; "
        "a text without any is continued; - reads standard input",
    )
    add_model_arguments(parser, default="nano-text")
    parser.add_argument(
        "--num-samples", type=int, default=1, help="answers, with seeds seed, seed+1, ..."
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--max-new-tokens", type=int, help="longest answer per blank (64)")
    sampling.add_argument("--min-new-tokens", type=int, help="shortest answer per blank (0)")
    sampling.add_argument(
        "--temperature",
        type=float,
        help=f"0 takes the most probable token (0 for blanks, {CONTINUE_TEMPERATURE} with top-p "
        f"{CONTINUE_TOP_P} for a continuation)",
    )
    sampling.add_argument("--top-k", type=int, help="sample among the k most probable (all)")
    sampling.add_argument("--top-p", type=float, help="sample among this probability mass (1)")
    sampling.add_argument("--min-p", type=float, help="sample above this share of the best (0)")
    sampling.add_argument("--repetition-penalty", type=float, help="above 1 repeats less (1)")
    sampling.add_argument("--presence-penalty", type=float, help="off each token used (0)")
    sampling.add_argument("--frequency-penalty", type=float, help="off a token per use (0)")
    sampling.add_argument(
        "--logit-bias", action=_LogitBias, metavar="ID=NUMBER", help="added to a logit (repeats)"
    )
    sampling.add_argument("--num-beams", type=int, help="above 1 is beam search (1)")
    sampling.add_argument("--length-penalty", type=float, help="of beam search (1)")
    sampling.add_argument("--seed", type=int, help="(0)")
    sampling.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this text (repeats)"
    )
    sampling.add_argument(
        "--stop-token-id",
        action="append",
        type=int,
        dest="stop_token_ids",
        metavar="ID",
        help="end at this token (repeats)",
    )
    shape = parser.add_argument_group("form of the answer").add_mutually_exclusive_group()
    shape.add_argument("--json-schema", metavar="FILE", help="JSON of the schema in this file")
    shape.add_argument("--regex", metavar="PATTERN", help="text that this pattern matches")


def run(args: argparse.Namespace) -> int:
    """Load the model, answer, print."""
    from glm_core.infer.blanks import check_spelling, has_marker

    prompt = given_text(args.prompt)
    check_spelling(prompt)
    continues = not has_marker(prompt)
    configs = sampling_configs(args, continues)
    grammar = _grammar(args)
    generator = _load(args)
    if continues and not args.json and len(configs) == 1 and configs[0].num_beams == 1:
        _print_stream(generator, prompt, configs[0], grammar)
        return 0
    samples = generator.fill_batch([prompt] * len(configs), configs, grammar)
    result = {
        "model": args.model,
        "prompt": prompt,
        "text": samples[0].text,
        "samples": [_sample_data(sample) for sample in samples],
    }
    emit(args, result, "\n\n".join(highlight(sample, _is_terminal()) for sample in samples))
    return 0


def sampling_configs(args: argparse.Namespace, continues: bool) -> list[SamplingConfig]:
    """The sampling config of each sample: what the flags say, defaults for the rest."""
    from dataclasses import fields, replace

    from glm_core.infer import SamplingConfig

    if args.num_samples < 1:
        raise ValueError(f"--num-samples is {args.num_samples}: it must be at least 1")
    given = {field.name: getattr(args, field.name) for field in fields(SamplingConfig)}
    given = {name: value for name, value in given.items() if value is not None}
    draws = continues or args.num_samples > 1
    if draws and "temperature" not in given and given.get("num_beams", 1) == 1:
        given = {"temperature": CONTINUE_TEMPERATURE, "top_p": CONTINUE_TOP_P} | given
    first = SamplingConfig(**given)
    if args.num_samples > 1 and first.temperature == 0:
        raise ValueError(
            f"--num-samples is {args.num_samples}, but without chance all answers are the same: "
            "give --temperature above 0 and no --num-beams"
        )
    return [replace(first, seed=first.seed + index) for index in range(args.num_samples)]


def highlight(filled: Filled, bold: bool) -> str:
    """The filled text; on a terminal the model's words stand out."""
    if not bold:
        return filled.text
    text, at = "", 0
    for blank in filled.blanks:
        end = blank.start + len(blank.text)
        text += filled.text[at : blank.start] + f"\x1b[1m{blank.text}\x1b[0m"
        at = end
    return text + filled.text[at:]


def _load(args: argparse.Namespace) -> TextGenerator:
    from glm_core.infer import TextGenerator

    loaded = load_named_model(args)
    return TextGenerator(loaded.model, loaded.tokenizer)


def _grammar(args: argparse.Namespace) -> Grammar | None:
    from glm_core.infer.grammar import JsonSchema, Regex

    if args.regex is not None:
        return Regex(args.regex)
    if args.json_schema is None:
        return None
    path = Path(args.json_schema)
    try:
        return JsonSchema(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(
            f"cannot read {path} ({error.strerror}): give --json-schema a file"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): --json-schema needs a schema") from error


class _LogitBias(argparse.Action):
    """Gathers ID=NUMBER of every time the flag is given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        token, _, bias = str(values).partition("=")
        try:
            entry = {int(token): float(bias)}
        except ValueError:
            parser.error(f"--logit-bias is {values!r}: it must be an id, = and a number")
        setattr(namespace, self.dest, (getattr(namespace, self.dest) or {}) | entry)


def _print_stream(
    generator: TextGenerator, prompt: str, config: SamplingConfig, grammar: Grammar | None
) -> None:
    pieces = generator.stream(prompt, config, grammar)
    start, end = ("\x1b[1m", "\x1b[0m") if _is_terminal() else ("", "")
    sys.stdout.write(prompt)
    for piece in pieces:
        sys.stdout.write(f"{start}{piece}{end}")
        sys.stdout.flush()
    sys.stdout.write("\n")


def _is_terminal() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _sample_data(filled: Filled) -> dict[str, Any]:
    return {
        "text": filled.text,
        "blanks": [
            {
                "marker": blank.marker,
                "text": blank.text,
                "start": blank.start,
                "tokens": blank.tokens,
                "logprob": round(blank.logprob, 4),
                "finish_reason": blank.finish_reason,
            }
            for blank in filled.blanks
        ],
    }
