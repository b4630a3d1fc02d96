"""A program in its sandbox, from its compilation to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from codegeex.evaluate.runners.base import Runner, judge_stopped, shortened, text
from codegeex.evaluate.verdict import Judgement, Verdict
from codegeex.evaluate.work import Result
from glm_core.agent.executor import ExecutorLimits, ProgramResult, ProgramSandbox

_INPUT = "standard-input"


class CompiledProgram:
    """What a sandbox holds, and what has been found out so far.

    Args:
        sandbox: with the program's files.
        environment: of all its commands.
        limits: of each run.
        result: what is known of the program.
    """

    def __init__(
        self,
        sandbox: ProgramSandbox,
        environment: Mapping[str, str],
        limits: ExecutorLimits,
        result: Result,
    ) -> None:
        self._sandbox = sandbox
        self._environment = environment
        self._limits = limits
        self.result = result
        self.is_refused = False
        """Whether there is nothing to run."""

    def write(self, files: Mapping[str, str]) -> None:
        """Puts its files into the sandbox."""
        try:
            for name, content in files.items():
                self._sandbox.write_file(name, content.encode(errors="surrogatepass"))
        except ValueError as error:  # more text than a file may hold
            self._refuse(Judgement(verdict=Verdict.files, detail=shortened(str(error))), "")

    def compile(self, command: Sequence[str], limits: ExecutorLimits, runner: Runner) -> None:
        """Compiles it.

        Raises:
            ToolMissing: it needs something that is not installed.
        """
        ended = self._sandbox.run(command, self._environment, limits)
        self.result = replace(self.result, compile_s=ended.seconds)
        judgement = judge_stopped(ended, asdict(limits)) or runner.judge_compiled(ended)
        if judgement is not None:
            self._refuse(judgement, "compile")

    def _refuse(self, judgement: Judgement, stage: str) -> None:
        self.is_refused = True
        self.result = self.result.judged(judgement, stage)

    def run(self, command: Sequence[str], stdin: str | None = None) -> ProgramResult:
        """Runs it once, with a text as its standard input."""
        if stdin is not None:
            self._sandbox.write_file(_INPUT, stdin.encode(errors="surrogatepass"))
            command = ("/bin/sh", "-c", f'exec "$0" "$@" < {_INPUT}', *command)
        ended = self._sandbox.run(command, self._environment, self._limits)
        self.result = replace(
            self.result,
            run_s=self.result.run_s + ended.seconds,
            cpu_s=self.result.cpu_s + ended.cpu_s,
            peak_bytes=max(self.result.peak_bytes, ended.peak_bytes),
        )
        return ended

    def stopped(self, ended: ProgramResult) -> Judgement | None:
        """Returns the verdict over a run that a limit has ended."""
        return judge_stopped(ended, asdict(self._limits))

    def ended(self, judgement: Judgement) -> Result:
        """Returns the result of the runs."""
        return self.result.judged(judgement, "run")


def judge_output(ended: ProgramResult, outputs: Sequence[str], number: int) -> Judgement:
    """Returns the verdict over what a program wrote.

    White space at the ends of lines, and empty lines at the end, make no difference.

    Args:
        ended: a run that ended well.
        outputs: what it should have written; any of them.
        number: of the example, from 1.
    """
    written = _lines(text(ended.stdout))
    if any(written == _lines(output) for output in outputs):
        return Judgement(verdict=Verdict.passed)
    said = shortened(" ".join(written)[:100])
    return Judgement(verdict=Verdict.wrong_answer, detail=f"example {number}: it wrote {said!r}")


def _lines(output: str) -> list[str]:
    return [line.rstrip() for line in output.rstrip().splitlines()]
