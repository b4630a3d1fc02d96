"""``codegeex evaluate generate``: samples of HumanEval-X by a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from codegeex.commands.evaluate_parts import add_part, add_problem_arguments
from glm_core.cli import emit
from glm_core.commands.model_arguments import add_model_arguments, load_named_model

if TYPE_CHECKING:
    from codegeex.evaluate.generate import Task
    from glm_core.infer.sampling import SamplingConfig

_STYLES = ("stripped", "tagged", "plain")
_SEVERAL_TEMPERATURE, _TOP_P = 0.8, 0.95
"""Of HumanEval-X's tables: pass@10 and pass@100 at 0.8; pass@1 at 0.2, or greedy."""


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
    parser.add_argument("--samples", type=int, default=1, help="per problem (default: %(default)s)")
    parser.add_argument(
        "--temperature",
        type=float,
        help=f"0 takes the most probable token (0; {_SEVERAL_TEMPERATURE} for several samples)",
    )
    parser.add_argument("--top-p", type=float, default=_TOP_P, help="(default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=0, help="0 keeps all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=512, help="longest answer (default: %(default)s)"
    )
    parser.add_argument(
        "--parallel", type=int, default=16, help="answers at a time (default: %(default)s)"
    )
    add_model_arguments(parser, default="nano-code")


def sampling_config(args: argparse.Namespace) -> SamplingConfig:
    """Returns how answers are decoded.

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
