"""Programs to run, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from codegeex.evaluate.verdict import Judgement, Verdict


@dataclass(frozen=True, kw_only=True)
class Example:
    """What a program reads, and what it must write then."""

    stdin: str
    outputs: tuple[str, ...]
    """Any of these is right."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A program to run."""

    task_id: str
    number: int = 0
    """Which answer to its problem it is."""
    language: str
    """A key of `codegeex.languages`."""
    suite: str = ""
    """Part of the benchmark that is counted by itself; empty where the language is that part."""
    source: str
    """With its tests, or without where there are examples."""
    examples: tuple[Example, ...] = ()
    """Run one after the other until one goes wrong."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a program."""

    task_id: str
    number: int
    language: str
    suite: str = ""
    verdict: Verdict
    detail: str = ""
    """The line that says most, as the compiler or the program wrote it."""
    stage: str = ""
    """`match`, `compile` or `run`: what was done to find out; empty where it was skipped."""
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
