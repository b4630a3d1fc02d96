"""``codegeex evaluate generate``: samples of HumanEval-X by a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from codegeex.commands.evaluate_parts import (
    add_part,
    add_problem_arguments,
    add_sampling_arguments,
    sampling_config,
)
from glm_core.cli import emit
from glm_core.commands.model_arguments import add_model_arguments, load_named_model

if TYPE_CHECKING:
    from codegeex.evaluate.generate import Task

_STYLES = ("stripped", "tagged", "plain")


def add_parsers(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declares the subcommand."""
    told = "write samples with a model; the same command goes on where it broke off"
    parser = add_part(parts, "generate", told, _generate)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="samples, .jsonl")
    add_problem_arguments(parser)
    parser.add_argument(
        "--translate-from",
        metavar="LANGUAGE",
        help="translate the solutions of this language into the --language; --problems must hold "
        "both",
    )
    parser.add_argument(
        "--prompt-style",
        choices=_STYLES,
        default="stripped",
        help="stripped: as CodeGeeX2 was measured; tagged: after CodeGeeX's language line; plain: "
        "as in the file (default: %(default)s)",
    )
    add_sampling_arguments(parser, max_new_tokens=512)
    add_model_arguments(parser, default="nano-code")


def _generate(args: argparse.Namespace) -> int:
    from codegeex.evaluate.generate import Generation
    from glm_core.infer.engine import Engine, EngineConfig
    from glm_core.progress import Progress

    sampling, tasks = sampling_config(args), _tasks(args)
    config = EngineConfig(max_running=args.parallel)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    loaded = load_named_model(args)
    with Engine(loaded.model, loaded.tokenizer, config=config) as engine:
        work = Generation(engine, tasks, args.samples, sampling, args.out, args.model)
        progress = Progress("generating", work.num_missing, "samples")
        written = tokens = 0
        for answered in work.run():
            written, tokens = written + 1, tokens + answered.num_tokens
            progress.add(1)
    result = {
        "samples": str(args.out),
        "written": written,
        "already_there": work.num_samples - written,
        "tokens": tokens,
    }
    text = f"{work.num_samples} samples in {args.out} ({written} of them new)"
    emit(args, result, f"{text}\nnext: codegeex evaluate execute {args.out} --allow-execution")
    return 0


def _tasks(args: argparse.Namespace) -> list[Task]:
    from codegeex.evaluate.generate import generation_tasks, translation_tasks
    from codegeex.evaluate.humaneval_x import load_problems
    from codegeex.evaluate.prompts import PromptStyle

    problems = load_problems(args.problems, args.language)
    if args.translate_from is None:
        return generation_tasks(problems, PromptStyle(args.prompt_style))
    if len({problem.language for problem in problems.values()}) != 1 or not args.language:
        raise ValueError("--translate-from needs one --language to translate into")
    sources = load_problems(args.problems, [args.translate_from])
    return translation_tasks(sources, problems)
