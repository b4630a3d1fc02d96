"""Runs programs in a sandbox, many at a time, each in a fresh one."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace

from codegeex.evaluate.runners.base import (
    Plan,
    Runner,
    Toolchain,
    ToolMissing,
    judge_stopped,
)
from codegeex.evaluate.runners.table import make_runners
from codegeex.evaluate.verdict import Judgement, Verdict
from glm_core.agent.executor import ExecutorLimits, ProgramSandbox
from glm_core.agent.executor.choose import enclosure, working_sandbox
from glm_core.agent.executor.enclosure import Enclosure
from glm_core.agent.executor.limits import MIB

_QUEUED_PER_WORKER = 4


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """What a program may use, and what keeps it in."""

    sandbox: str = "auto"
    """auto, bubblewrap, unshare, or unsafe-local, which is none."""
    wall_s: float = 20.0
    """Seconds by the clock that a program may run; compiling is counted apart."""
    cpu_s: float = 5.0
    """Processor seconds of all its processes."""
    compile_s: float = 60.0
    """Seconds that compiling may take, by the clock; twice as many of processor time."""
    memory_bytes: int = 512 * MIB
    """Memory of a program's own data."""
    processes: int = 64
    """Processes and threads of a program."""
    output_bytes: int = 65_536
    """That a program may write to its two streams."""
    file_bytes: int = 16 * MIB
    """Size of a file that it may write."""
    disk_bytes: int = 256 * MIB
    """Size of its folder."""
    workers: int = 0
    """Programs at a time; 0: as many as there are processors for this process."""
    rust_crates: str = ""
    """Folder that `cargo vendor` made, with rand 0.4, regex 1 and md5 0.7."""

    def __post_init__(self) -> None:
        """Raises: ValueError for a limit that is not positive."""
        for name in ("wall_s", "cpu_s", "compile_s", "output_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}: it must be at least 0")
        self.run_limits(0)  # checks the others

    def run_limits(self, overhead: int) -> ExecutorLimits:
        """Returns the limits of a run, with so many bytes for its run-time system."""
        return ExecutorLimits(
            wall_s=self.wall_s,
            cpu_s=self.cpu_s,
            memory_bytes=self.memory_bytes + overhead,
            processes=self.processes,
            output_chars=self.output_bytes,
            file_bytes=self.file_bytes,
            disk_bytes=self.disk_bytes,
        )

    def compile_limits(self) -> ExecutorLimits:
        """Returns the limits of a compiler."""
        return ExecutorLimits(
            wall_s=self.compile_s,
            cpu_s=2 * self.compile_s,
            memory_bytes=2048 * MIB,
            processes=256,
            open_files=1024,
            output_chars=1 << 20,
            file_bytes=min(64 * MIB, self.disk_bytes),
            disk_bytes=self.disk_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class Work:
    """A program to run."""

    task_id: str
    number: int = 0
    """Which answer to its problem it is."""
    language: str
    """A key of `codegeex.languages`."""
    source: str
    """With its tests."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a program."""

    task_id: str
    number: int
    language: str
    verdict: Verdict
    detail: str = ""
    """The line that says most, as the compiler or the program wrote it."""
    stage: str = ""
    """`compile` or `run`: how far it came; empty where it was skipped."""
    compile_s: float = 0.0
    run_s: float = 0.0
    """Seconds by the clock."""
    cpu_s: float = 0.0
    """Processor seconds of the run."""
    peak_bytes: int = 0
    isolation: str = ""
    """What kept it in: bubblewrap, unshare, or unsafe-local."""
    toolchain: str = ""

    def judged(self, judgement: Judgement, stage: str = "") -> Result:
        """Returns it with a verdict."""
        return replace(self, verdict=judgement.verdict, detail=judgement.detail, stage=stage)


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
        self._found: dict[str, Toolchain | ToolMissing] = {}

    @property
    def num_workers(self) -> int:
        """Programs that run at a time."""
        return self.config.workers or len(os.sched_getaffinity(0))

    def toolchain(self, language: str) -> Toolchain:
        """Returns the tools of a language, looked for once.

        Raises:
            ToolMissing: they are not installed.
        """
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

        Leaving the loop early ends what is running when its time is over, and starts nothing more.
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

    def run(self, work: Work) -> Result:
        """Compiles and runs a program in a fresh sandbox."""
        result = Result(
            task_id=work.task_id,
            number=work.number,
            language=work.language,
            verdict=Verdict.skipped,
            isolation=self.isolation,
        )
        runner, token = self._runners[work.language], secrets.token_hex(8)
        try:
            tools = self.toolchain(work.language)
            result = replace(result, toolchain=tools.version)
            plan = runner.plan(work.source, token, tools, self.config.memory_bytes)
            return self._run(result, runner, plan, tools, token)
        except ToolMissing as error:
            return replace(result, detail=str(error))

    def _enclosure(self, folders: tuple[str, ...]) -> Enclosure:
        with self._finding:
            if folders not in self._enclosures:
                self._enclosures[folders] = enclosure(self.isolation, folders)
            return self._enclosures[folders]

    def _run(
        self, result: Result, runner: Runner, plan: Plan, tools: Toolchain, token: str
    ) -> Result:
        environment = {**tools.environment, **plan.environment}
        compiling = self.config.compile_limits()
        with ProgramSandbox(self._enclosure(tools.folders), compiling) as sandbox:
            for name, content in plan.files.items():
                sandbox.write_file(name, content.encode(errors="surrogatepass"))
            if plan.compile:
                ended = sandbox.run(plan.compile, environment)
                result = replace(result, compile_s=ended.seconds)
                judgement = judge_stopped(ended, asdict(compiling))
                judgement = judgement or runner.judge_compiled(ended)
                if judgement is not None:
                    return result.judged(judgement, "compile")
            limits = self.config.run_limits(runner.memory_overhead)
            ended = sandbox.run(plan.run, environment, limits)
        judgement = judge_stopped(ended, asdict(limits)) or runner.judge(ended, token)
        result = result.judged(judgement, "run")
        return replace(result, run_s=ended.seconds, cpu_s=ended.cpu_s, peak_bytes=ended.peak_bytes)


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
