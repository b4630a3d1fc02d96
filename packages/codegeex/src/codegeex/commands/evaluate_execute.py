"""``codegeex evaluate execute``, ``score`` and ``check``: programs, and what became of them."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from codegeex.commands.evaluate_parts import add_part, add_problem_arguments
from glm_core.cli import emit

if TYPE_CHECKING:
    from codegeex.evaluate.config import ExecutionConfig
    from codegeex.evaluate.execute import Executor
    from codegeex.evaluate.work import Result, Work

    _Works = tuple[list[Work], dict[tuple[str, int], Result], dict[tuple[str, str], int]]

logger = logging.getLogger(__name__)

_KINDS = ("auto", "bubblewrap", "unshare", "unsafe-local")


def add_parsers(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declares the three."""
    execute = add_part(parts, "execute", "run a file of samples in a sandbox", _execute)
    execute.add_argument(
        "samples", type=Path, help=".jsonl or .jsonl.gz with generation or completion"
    )
    add_problem_arguments(execute)
    execute.add_argument(
        "--results", type=Path, help="a run that broke off goes on in it (SAMPLES.results.jsonl)"
    )
    execute.add_argument(
        "--translated-to",
        default="",
        metavar="LANGUAGE",
        help="of samples whose task_ids name the source's language, as other programs write them",
    )
    execute.add_argument(
        "--tests",
        type=Path,
        metavar="FILE",
        help="HumanEval's own file, for lines of human-eval-infilling without tests",
    )
    execute.add_argument(
        "--clean", action="store_true", help="cut off what stands behind each answer's function"
    )
    execute.add_argument(
        "--examples-only", action="store_true", help="run only the tests that the prompts show"
    )
    _add_ks(execute)
    add_execution_arguments(execute)

    score = add_part(parts, "score", "pass@k of a file of results", _score)
    score.add_argument("results", type=Path, help="what execute wrote")
    _add_ks(score)

    told = "prove on this machine that right answers pass and wrong ones fail"
    check = add_part(parts, "check", told, _check)
    add_problem_arguments(check)
    add_execution_arguments(check)


def add_execution_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the limits."""
    group = parser.add_argument_group("execution")
    group.add_argument(
        "--allow-execution",
        action="store_true",
        help="needed: programs that a model wrote are compiled and run, in a sandbox",
    )
    group.add_argument(
        "--sandbox",
        choices=_KINDS,
        default="auto",
        help="unsafe-local is none, and is never taken unless named (default: %(default)s)",
    )
    group.add_argument("--workers", type=int, help="programs at a time (all processors)")
    group.add_argument("--wall-s", type=float, metavar="S", help="seconds of a run (20)")
    group.add_argument("--cpu-s", type=float, metavar="S", help="processor seconds of a run (5)")
    group.add_argument("--compile-s", type=float, metavar="S", help="seconds of a compiler (60)")
    group.add_argument("--memory", metavar="SIZE", help="of a program's data (512MB)")
    group.add_argument(
        "--rust-crates",
        metavar="FOLDER",
        help="what `cargo vendor` made of rand 0.4, regex 1 and md5 0.7; without it Rust programs "
        "that use them are skipped",
    )


def execution_config(args: argparse.Namespace) -> ExecutionConfig:
    """Returns the limits that the flags say.

    Raises:
        ValueError: a limit is wrong, or execution was not allowed.
    """
    from codegeex.evaluate.config import ExecutionConfig
    from glm_core.checkpoint.device_memory import parse_memory

    if not args.allow_execution:
        raise ValueError(
            "this compiles and runs programs that a model wrote: say --allow-execution to let it, "
            "in a sandbox without network, with limits on time, memory, processes and files"
        )
    known = {field.name for field in fields(ExecutionConfig)}
    given = {
        name: value for name, value in vars(args).items() if name in known and value is not None
    }
    if args.memory is not None:
        given["memory_bytes"] = parse_memory(args.memory, "--memory")
    return ExecutionConfig(**given)


def _add_ks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--k", type=int, action="append", help="of pass@k; repeats (1, 10 and 100)")


def _execute(args: argparse.Namespace) -> int:
    from codegeex.evaluate.report import report, report_text
    from codegeex.evaluate.results import ResultsFile, results_path

    config, ks = execution_config(args), _ks(args)
    works, known, num_problems = _works(args)
    executor = make_executor(config)
    path = args.results or results_path(args.samples)
    results = ResultsFile(path, works, config, num_problems)
    if len(results.missing) < len(works):
        logger.info(f"{len(works) - len(results.missing)} of {len(works)} results are in {path}")
    decided, running = [], []
    for work in results.missing:
        result = known.get((work.task_id, work.number))
        if result is None:
            running.append(work)
        else:
            decided.append(result)
    for _ in results.add(chain(decided, run_all(executor, running))):
        continue
    summaries = report(results.rows.values(), ks)
    text = f"{report_text(summaries)}\nresults in {path}"
    emit(args, {"results": str(path), "languages": summaries}, text)
    return 0


def _works(args: argparse.Namespace) -> _Works:
    """Returns programs, results that are known without running them, and numbers of problems."""
    from codegeex.evaluate.humaneval_x import load_problems, sample_works
    from codegeex.evaluate.infilling.judge import count_by_part, judge
    from codegeex.evaluate.infilling.load import is_infilling, read_holes
    from codegeex.evaluate.samples import read_samples

    samples = read_samples(args.samples)
    if any(is_infilling(path) for path in args.problems):
        tasks = read_holes(args.problems, args.tests)
        judged = judge(tasks, samples)
        return list(judged.works), judged.known, count_by_part(tasks)
    problems = load_problems(args.problems, args.language)
    works = sample_works(
        problems,
        samples,
        examples_only=args.examples_only,
        translated_to=args.translated_to,
        clean=args.clean,
    )
    return works, {}, dict(Counter((problem.language, "") for problem in problems.values()))


def _score(args: argparse.Namespace) -> int:
    from codegeex.evaluate.report import report, report_text
    from codegeex.evaluate.results import read_results

    ks = _ks(args)
    rows = {row.key: row for row in read_results(args.results)}  # the last of a sample counts
    summaries = report(rows.values(), ks)
    emit(args, {"languages": summaries}, report_text(summaries))
    return 0


def _check(args: argparse.Namespace) -> int:
    from codegeex.evaluate import check
    from codegeex.evaluate.humaneval_x import load_problems

    config = execution_config(args)
    problems = load_problems(args.problems, args.language)
    executor = make_executor(config)
    checked = check.check(problems, lambda works: run_all(executor, works))
    emit(args, check.as_data(checked), check.as_text(checked))
    return 0 if all(one.is_right for one in checked) else 1


def make_executor(config: ExecutionConfig) -> Executor:
    """Returns what runs programs; says so loudly where nothing keeps them in.

    Raises:
        ValueError: there is no sandbox here.
    """
    from codegeex.evaluate.execute import Executor
    from glm_core.agent.executor import SandboxUnavailable

    try:
        executor = Executor(config)
    except SandboxUnavailable as error:
        raise ValueError(str(error)) from error
    if executor.isolation == "unsafe-local":
        logger.warning(
            "WARNING: no sandbox: these programs can read and delete all that you can, and reach "
            "the network"
        )
    return executor


def run_all(executor: Executor, works: Sequence[Work]) -> Iterator[Result]:
    """Yields results as they come, with a line about the progress now and then."""
    from glm_core.agent.executor import ExecutorError
    from glm_core.progress import Progress

    progress = Progress("running", len(works), "programs")
    try:
        for result in executor.run_all(works):
            progress.add(1)
            yield result
    except ExecutorError as error:  # what has been found out is in the file
        raise OSError(f"{error}; the same command goes on where this one ended") from error


def _ks(args: argparse.Namespace) -> tuple[int, ...]:
    from codegeex.evaluate.report import KS

    ks = tuple(args.k or KS)
    if min(ks) < 1:
        raise ValueError(f"--k is {min(ks)}: it must be at least 1")
    return ks
