"""``codegeex generate``: completes code, and prints the completion and nothing else."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codegeex.hole import Hole, Mode, Reference
from glm_core.cli import emit
from glm_core.commands.model_arguments import add_model_arguments, load_named_model

if TYPE_CHECKING:
    from codegeex.complete import Completed, Completer, Completion, Options, Pending

HELP = "complete code between a prefix and a suffix, or in a file"
EXAMPLE = """\
codegeex generate --prefix "def fib(n):" --suffix ""
codegeex generate --file app.py --line 12 --mode line
codegeex generate --file app.py --line 12 --column 9 --root . --num-choices 3
git show HEAD:app.py | codegeex generate --stdin --line 12 --path app.py"""

SEVERAL_TEMPERATURE, SEVERAL_TOP_P = 0.6, 0.95


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags. Those of `Options` have its names; without a flag its default."""
    where = parser.add_argument_group("where")
    where.add_argument("text", nargs="?", metavar="PREFIX", help="as --prefix")
    where.add_argument("--prefix", metavar="TEXT", help="the code before the cursor")
    where.add_argument("--suffix", metavar="TEXT", help="the code behind the cursor (none)")
    where.add_argument("--file", metavar="PATH", help="a file with the cursor in it")
    where.add_argument(
        "--stdin", action="store_true", help="the file is standard input; --path may name it"
    )
    where.add_argument(
        "--line", type=int, metavar="N", help="the cursor's line, from 1 (behind the last)"
    )
    where.add_argument(
        "--column",
        type=int,
        metavar="N",
        help="characters before the cursor in its line, plus 1 (end of the line)",
    )
    where.add_argument(
        "--prompt",
        metavar="TEXT",
        help="a prompt in the model's own format, its special tokens written out",
    )
    what = parser.add_argument_group("what is known")
    what.add_argument("--language", metavar="NAME", help="(what the file's name tells)")
    what.add_argument("--path", help="of the file, relative to its repository")
    what.add_argument(
        "--mode", choices=list(Mode), default=Mode.block, help="one line or a block (%(default)s)"
    )
    what.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="FILE",
        help="another file that helps, the most useful last (repeats)",
    )
    what.add_argument(
        "--root",
        metavar="DIR",
        help="a repository whose other files may help, as far as the prompt has room",
    )
    what.add_argument(
        "--fim-format", metavar="NAME", help="how the model was taught to fill in (as it tells)"
    )
    add_model_arguments(parser, default="nano-code", prefix_flag="--prefix-encoder")
    how = parser.add_argument_group("how")
    how.add_argument("--num-choices", type=int, metavar="N", help="completions, best first (1)")
    how.add_argument("--max-new-tokens", type=int, metavar="N", help="longest completion (64)")
    how.add_argument(
        "--temperature",
        type=float,
        help=f"0 takes the most probable token (0; {SEVERAL_TEMPERATURE} with top-p "
        f"{SEVERAL_TOP_P} for several completions)",
    )
    how.add_argument("--top-k", type=int, help="sample among the k most probable (all)")
    how.add_argument("--top-p", type=float, help="sample among this probability mass (1)")
    how.add_argument("--seed", type=int, help="(0)")
    how.add_argument("--stop", action="append", metavar="TEXT", help="end before it (repeats)")
    how.add_argument("--max-lines", type=int, metavar="N", help="end with so many lines (any)")
    how.add_argument(
        "--min-indent", type=int, metavar="N", help="white space before every line but the first"
    )
    how.add_argument(
        "--time-limit", type=float, dest="time_limit_s", metavar="SECONDS", help="for more lines"
    )
    how.add_argument(
        "--raw", action="store_true", help="what the model writes, not ended or trimmed by rules"
    )
    how.add_argument(
        "--no-healing",
        action="store_true",
        help="leave the last token of the prefix as it is, even if it may be half of one",
    )
    parser.add_argument(
        "-0", "--null", action="store_true", help="end each completion with NUL, not a line break"
    )


def run(args: argparse.Namespace) -> int:
    """Load the model, complete, print."""
    hole = None if args.prompt is not None else hole_of(args)
    options = options_of(args)
    with _completer(args) as completer:
        pending = (
            completer.submit_text(args.prompt, options)
            if hole is None
            else completer.submit(_with_references(hole, options, completer, args), options)
        )
        if args.json or options.num_choices > 1:
            _print_all(args, pending.outcome())
        else:
            _print_stream(pending, "\0" if args.null else "\n")
    return 0


def hole_of(args: argparse.Namespace) -> Hole:
    """Returns the hole that the flags name.

    Raises:
        ValueError: they name none, or several; or its file cannot be read.
    """
    from codegeex.languages import find_language, language_of_path

    prefix = args.text if args.prefix is None else args.prefix
    given = [prefix is not None, args.file is not None, args.stdin]
    if sum(given) != 1 or (args.prefix is not None and args.text is not None):
        raise ValueError(
            "the place to complete must be given once: --prefix (and --suffix), --file, --stdin "
            "or --prompt"
        )
    if prefix is None:
        if args.suffix is not None:
            raise ValueError("--suffix goes with --prefix: a file has a suffix of its own")
        before, behind = _split(args)
    elif args.line is not None or args.column is not None:
        raise ValueError("--line and --column are places in a file: give --file or --stdin")
    else:
        before, behind = _utf8(prefix, "--prefix"), _utf8(args.suffix or "", "--suffix")
    path = args.path or args.file or ""
    known = find_language(args.language) if args.language else language_of_path(path)
    return Hole(
        prefix=before,
        suffix=behind,
        path=path,
        language=known.key if known else "",
        mode=Mode(args.mode),
        references=tuple(_reference(Path(name)) for name in args.reference),
    )


def options_of(args: argparse.Namespace) -> Options:
    """Returns what the flags say, defaults for the rest."""
    from dataclasses import fields

    from codegeex.complete import Options

    given = {field.name: getattr(args, field.name, None) for field in fields(Options)}
    given = {name: value for name, value in given.items() if value is not None}
    given["stop"] = tuple(args.stop or ())
    if (args.num_choices or 1) > 1 and "temperature" not in given:
        given = {"temperature": SEVERAL_TEMPERATURE, "top_p": SEVERAL_TOP_P} | given
    options = Options(**given)
    if options.num_choices > 1 and options.temperature == 0:
        raise ValueError(
            f"--num-choices is {options.num_choices}, but without chance all completions are the "
            "same: give --temperature above 0"
        )
    if options.max_new_tokens == 0:
        raise ValueError("--max-new-tokens is 0: it must be at least 1")
    return options


@contextmanager
def _completer(args: argparse.Namespace) -> Iterator[Completer]:
    from codegeex.complete import Completer
    from codegeex.fim import format_of_model
    from glm_core.infer.engine import Engine, EngineConfig

    loaded = load_named_model(args)
    format = format_of_model(args.model, loaded.tokenizer, args.fim_format)
    config = EngineConfig(max_running=max(args.num_choices or 1, 1))
    with Engine(loaded.model, loaded.tokenizer, config=config) as engine:
        yield Completer(engine, format, args.model, heals=not args.no_healing)


def _split(args: argparse.Namespace) -> tuple[str, str]:
    """Returns the file before and behind the cursor."""
    from codegeex.complete.cursor import Columns, split_at, text_of

    name = "standard input" if args.stdin else args.file
    data = sys.stdin.buffer.read() if args.stdin else Path(args.file).read_bytes()
    text = text_of(data, name)
    for flag, value in (("--line", args.line), ("--column", args.column)):
        if value is not None and value < 1:
            raise ValueError(f"{flag} is {value}: it must be at least 1")
    if args.line is None:
        if args.column is not None:
            raise ValueError("--column needs --line")
        return text, ""
    column = sys.maxsize if args.column is None else args.column - 1
    try:
        return split_at(text, args.line - 1, column, Columns.utf32)
    except ValueError:
        raise ValueError(
            f"--line is {args.line}, but {name} has only {len(text.splitlines())} lines"
        ) from None


def _with_references(
    hole: Hole, options: Options, completer: Completer, args: argparse.Namespace
) -> Hole:
    """Returns the hole with what its repository has that helps; the user's own comes last."""
    if args.root is None:
        return hole
    from codegeex.complete.context import RepositoryContext

    context = RepositoryContext(args.root)
    if args.file is not None and args.path is None:
        path = context.path_of(str(Path(args.file).resolve()))
        hole = replace(hole, path=path or hole.path)
    context.refresh()
    context.close()
    room = completer.room_for_references(hole, options)
    found = context.references(hole, room, lambda text: len(completer.tokenizer.encode(text)))
    return replace(hole, references=(*found, *hole.references))


def _reference(path: Path) -> Reference:
    from codegeex.complete.cursor import text_of

    return Reference(path=str(path), text=text_of(path.read_bytes(), str(path)))


def _utf8(text: str, flag: str) -> str:
    try:
        text.encode("utf-8")  # bytes that are no UTF-8 arrive as lone surrogates
    except UnicodeError as error:
        raise ValueError(f"{flag} is not UTF-8: convert it, for example with iconv") from error
    return text


def _print_stream(pending: Pending, end: str) -> None:
    for piece in pending:
        sys.stdout.write(piece.text)
        sys.stdout.flush()
    sys.stdout.write(end)


def _print_all(args: argparse.Namespace, completed: Completed) -> None:
    result = {
        "model": args.model,
        "choices": [_data(choice) for choice in completed.choices],
        "usage": vars(completed.usage),
        "timings": {name: round(value, 6) for name, value in vars(completed.timings).items()},
    }
    texts = [choice.text for choice in completed.choices]
    if args.null and not args.json:
        sys.stdout.write("".join(f"{text}\0" for text in texts))
    else:
        emit(args, result, "\n\n".join(texts))


def _data(choice: Completion) -> dict[str, Any]:
    return {
        "text": choice.text,
        "tokens": list(choice.tokens),
        "mean_logprob": round(choice.mean_logprob, 4),
        "finish_reason": choice.finish_reason,
        "stop_type": choice.stop_type,
        "stopping_word": choice.stopping_word,
        "rule": choice.rule,
    }
