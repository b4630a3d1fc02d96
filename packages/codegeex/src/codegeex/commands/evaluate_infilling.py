"""``codegeex evaluate infilling``: a model fills holes."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from codegeex.commands.evaluate_parts import add_part, add_sampling_arguments, sampling_config
from glm_core.cli import emit
from glm_core.commands.model_arguments import add_model_arguments, load_named_model

if TYPE_CHECKING:
    from codegeex.evaluate.infilling.task import Tasks
    from codegeex.fim import FimFormat
    from glm_core.tokenizer.protocol import Tokenizer

_LEFT_TO_RIGHT = "l2r"


def add_parsers(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declares the subcommand."""
    told = "have a model fill holes, of a benchmark or of source files"
    parser = add_part(parts, "infilling", told, _infilling)
    parser.add_argument(
        "where",
        type=Path,
        nargs="+",
        help="files of human-eval-infilling or SAFIM (.jsonl or .jsonl.gz), or one folder with "
        "source code that the model has not seen",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="completions, .jsonl; a break goes on in it (none)"
    )
    parser.add_argument(
        "--fim-format",
        metavar="NAME",
        help="spm, psm, codegeex4, or l2r for what stands before the hole alone (the model's own)",
    )
    parser.add_argument(
        "--no-healing",
        action="store_true",
        help="leave the last token before the hole as it is, even if it may be half of one",
    )
    parser.add_argument(
        "--tests", type=Path, metavar="FILE", help="HumanEval's own file, where lines have no tests"
    )
    drawn = parser.add_argument_group("holes in source code")
    drawn.add_argument(
        "--holes", type=int, default=200, help="drawn by --seed (default: %(default)s)"
    )
    drawn.add_argument(
        "--lines",
        choices=("single", "multi", "both"),
        default="single",
        help="the rest of one line, or several whole ones (default: %(default)s)",
    )
    drawn.add_argument(
        "--language", action="append", default=[], help="of the files; repeats (all)"
    )
    add_sampling_arguments(parser, max_new_tokens=128)
    add_model_arguments(parser, default="nano-code")


def _infilling(args: argparse.Namespace) -> int:
    from codegeex.evaluate.infilling.complete import Filling
    from codegeex.evaluate.infilling.judge import closeness, closeness_text
    from codegeex.evaluate.samples import read_samples
    from glm_core.infer.engine import Engine, EngineConfig
    from glm_core.progress import Progress

    sampling, tasks = sampling_config(args), _tasks(args)
    loaded = load_named_model(args)
    format = _format(args, loaded.tokenizer)
    config = EngineConfig(max_running=args.parallel)
    engine = Engine(loaded.model, loaded.tokenizer, config=config)
    with engine, _samples_path(args.out) as path:
        filling = Filling(
            engine,
            format,
            tasks,
            args.samples,
            sampling,
            path,
            args.model,
            heals=not args.no_healing,
        )
        progress, tokens = Progress("filling", filling.num_missing, "holes"), 0
        for answered in filling.run():
            tokens += answered.num_tokens
            progress.add(1)
        samples = [one for one in read_samples(path) if one.task_id in tasks]
    found = closeness(tasks, samples)
    name = _LEFT_TO_RIGHT if format is None else format.name
    result = {"model": args.model, "fim_format": name, "tokens": tokens, "suites": found}
    runs = args.out is not None and any(task.work for task in tasks.values())
    files = " ".join(f"--problems {path}" for path in args.where)
    next_step = f"\nnext: codegeex evaluate execute {args.out} {files} --allow-execution"
    text = f"{args.model}, {name}\n{closeness_text(found)}"
    emit(args, result | {"samples": str(args.out or "")}, text + (next_step if runs else ""))
    return 0


def _tasks(args: argparse.Namespace) -> Tasks:
    from codegeex.evaluate.infilling.held_out import MULTI, SINGLE, draw_tasks
    from codegeex.evaluate.infilling.load import read_holes

    if args.holes < 1:
        raise ValueError(f"--holes is {args.holes}: it must be at least 1")
    if not any(path.is_dir() for path in args.where):
        return read_holes(args.where, args.tests)
    if len(args.where) != 1:
        raise ValueError("holes are drawn in one folder at a time: name it alone")
    suites = {"single": [SINGLE], "multi": [MULTI], "both": [SINGLE, MULTI]}[args.lines]
    drawn = [
        draw_tasks(args.where[0], args.holes, suite, args.language, args.seed) for suite in suites
    ]
    return {task_id: task for part in drawn for task_id, task in part.items()}


def _format(args: argparse.Namespace, tokenizer: Tokenizer) -> FimFormat | None:
    """Returns how the model is asked; None: left to right."""
    from codegeex.fim import format_of, format_of_model

    if args.fim_format == _LEFT_TO_RIGHT:
        return None
    return format_of_model(args.model, tokenizer, args.fim_format) or format_of(tokenizer)


@contextlib.contextmanager
def _samples_path(out: Path | None) -> Iterator[Path]:
    """Yields where completions go; a file that is removed where none is named."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="codegeex-infilling-") as folder:
        yield Path(folder) / "samples.jsonl"
