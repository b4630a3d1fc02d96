"""The ``codegeex`` command."""

from __future__ import annotations

from collections.abc import Sequence

from codegeex.commands import COMMANDS
from glm_core import cli

PROGRAM = cli.Program(
    name="codegeex",
    package="codegeex.commands",
    commands=COMMANDS,
    description="Complete code: in the terminal, in an editor, with a model of your own.",
    example='codegeex generate --prefix "def fib(n):" --suffix ""',
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``codegeex`` with `argv` (default: the process's); returns the exit status."""
    return cli.main(argv, PROGRAM)
