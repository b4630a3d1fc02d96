"""Runs programs in a sandbox, many at a time, each in a fresh one."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace

from codegeex.evaluate.compiled import CompiledProgram, judge_output
from codegeex.evaluate.config import ExecutionConfig
from codegeex.evaluate.runners.base import PlainRunner, Plan, Runner, Toolchain, ToolMissing
from codegeex.evaluate.runners.table import make_runners
from codegeex.evaluate.verdict import Judgement, Verdict
from codegeex.evaluate.work import Result, Work
from glm_core.agent.executor import ProgramSandbox
from glm_core.agent.executor.choose import enclosure, working_sandbox
from glm_core.agent.executor.enclosure import Enclosure

_QUEUED_PER_WORKER = 4


class Executor:
    """Compiles and runs programs of every language.

    Args:
        config: limits, and the sandbox.

    Raises:
        SandboxUnavailable: there is no sandbox here; the message says what to install.
    """

    def __init__(self, config: ExecutionConfig | None = None) -> None:
        self.config = config or ExecutionConfig()
        kind = self.config.sandbox
        self.isolation = working_sandbox() if kind == "auto" else kind
        self._enclosures: dict[tuple[str, ...], Enclosure] = {(): enclosure(self.isolation)}
        self._runners = make_runners(self.config.rust_crates)
        self._finding = threading.Lock()
        self._sandboxes: set[ProgramSandbox] = set()
        """Those in which a program is compiled or run."""
        self._found: dict[str, Toolchain | ToolMissing] = {}

    @property
    def num_workers(self) -> int:
        """Programs that run at a time."""
        return self.config.workers or len(os.sched_getaffinity(0))

    def toolchain(self, language: str) -> Toolchain:
        """Returns the tools of a language, looked for once.

        Raises:
            ToolMissing: they are not installed, or nothing is known of the language.
        """
        if language not in self._runners:
            raise ToolMissing(f"programs in {language} are not run")
        with self._finding:
            if language not in self._found:
                try:
                    self._found[language] = self._runners[language].find()
                except ToolMissing as error:
                    self._found[language] = error
        found = self._found[language]
        if isinstance(found, ToolMissing):
            raise found.with_traceback(None)
        return found

    def run_all(self, works: Iterable[Work]) -> Iterator[Result]:
        """Runs programs on all workers; yields the results as they come.

        Leaving the loop early ends what is running, and starts nothing more.
        """
        running: set[Future[Result]] = set()
        with ThreadPoolExecutor(self.num_workers, "run-program") as pool:
            try:
                for work in works:
                    running.add(pool.submit(self.run, work))
                    if len(running) >= _QUEUED_PER_WORKER * self.num_workers:
                        yield from _next(running)
                while running:
                    yield from _next(running)
            finally:
                for future in running:
                    future.cancel()
                for sandbox in list(self._sandboxes):
                    sandbox.stop()

    def run(self, work: Work) -> Result:
        """Compiles and runs a program in a fresh sandbox."""
        result = Result(
            task_id=work.task_id,
            number=work.number,
            language=work.language,
            suite=work.suite,
            verdict=Verdict.skipped,
            isolation=self.isolation,
        )
        try:
            tools = self.toolchain(work.language)
            result = replace(result, toolchain=tools.version)
            if work.examples:
                return self._run_examples(result, work, tools)
            return self._run_tests(result, work, tools)
        except ToolMissing as error:
            return replace(result, detail=str(error))

    def _enclosure(self, folders: tuple[str, ...]) -> Enclosure:
        with self._finding:
            if folders not in self._enclosures:
                self._enclosures[folders] = enclosure(self.isolation, folders)
            return self._enclosures[folders]

    def _run_tests(self, result: Result, work: Work, tools: Toolchain) -> Result:
        """Runs a program that tests itself."""
        runner, token = self._runners[work.language], secrets.token_hex(8)
        plan = runner.plan(work.source, token, tools, self.config.memory_bytes)
        with self._compiled(result, runner, plan, tools) as program:
            if program.is_refused:
                return program.result
            ended = program.run(plan.run)
            return program.ended(program.stopped(ended) or runner.judge(ended, token))

    def _run_examples(self, result: Result, work: Work, tools: Toolchain) -> Result:
        """Runs a program once for each example, until one goes wrong."""
        runner = self._runners[work.language]
        if not isinstance(runner, PlainRunner):
            raise ToolMissing(f"programs that read and write are not run in {work.language}")
        plan = runner.plan_plain(work.source, tools, self.config.memory_bytes)
        with self._compiled(result, runner, plan, tools) as program:
            if program.is_refused:
                return program.result
            for number, example in enumerate(work.examples, start=1):
                ended = program.run(plan.run, example.stdin)
                judgement = program.stopped(ended)
                if judgement is None and ended.status != 0:
                    judgement = runner.judge(ended, "")
                judgement = judgement or judge_output(ended, example.outputs, number)
                if judgement.verdict is not Verdict.passed:
                    return program.ended(judgement)
            return program.ended(Judgement(verdict=Verdict.passed))

    @contextmanager
    def _compiled(
        self, result: Result, runner: Runner, plan: Plan, tools: Toolchain
    ) -> Iterator[CompiledProgram]:
        compiling = self.config.compile_limits()
        environment = {**tools.environment, **plan.environment}
        with ProgramSandbox(self._enclosure(tools.folders), compiling) as sandbox:
            limits = self.config.run_limits(runner.memory_overhead)
            program = CompiledProgram(sandbox, environment, limits, result)
            self._sandboxes.add(sandbox)
            try:
                program.write(plan.files)
                if plan.compile and not program.is_refused:
                    program.compile(plan.compile, compiling, runner)
                yield program
            finally:
                self._sandboxes.discard(sandbox)


def _next(running: set[Future[Result]]) -> Iterator[Result]:
    """Waits for one or more programs and yields what became of them."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        running.discard(future)
        yield future.result()


def tools_here(language: str) -> dict[str, str]:
    """Returns the version of a language's tools on this machine, or what is missing."""
    try:
        return {"version": make_runners()[language].find().version, "missing": ""}
    except ToolMissing as error:
        return {"version": "", "missing": str(error)}
