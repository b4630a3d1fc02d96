"""The command line: finds the subcommand, and turns errors into exit statuses.

``glm`` is a `Program`, and so is the command of every package beside it.

Exit status 0: done. 1: failed. 2: bad usage or bad input. 130: interrupted.
With GLM_TRACEBACK=1 in the environment the one-line errors are preceded by their traceback.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from glm_core.commands import COMMANDS
from glm_core.errors import MissingExtraError

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
_EXPLAINED = (
    ValueError,
    OSError,
    FloatingPointError,
    MissingExtraError,
    argparse.ArgumentTypeError,
)
_WRONG_PATH = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A command with subcommands, each a module as glm_core/commands/__init__.py describes it."""

    name: str
    """What is typed."""
    package: str
    """Where the modules of the subcommands lie; the log of the package around it is shown."""
    commands: Mapping[str, str]
    """The line of help of every subcommand."""
    description: str
    example: str
    """One shell line for the end of ``--help``."""


GLM = Program(
    name="glm",
    package="glm_core.commands",
    commands=COMMANDS,
    description="Train, fill, continue and measure General Language Models.",
    example='glm generate --model nano-text "The [MASK] statement wraps a block."',
)


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of exiting, so that ``--json`` reports bad usage as well."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentTypeError(f"{message} (see: {self.prog} --help)")


def main(argv: Sequence[str] | None = None, program: Program = GLM) -> int:
    """Run a program with `argv` (default: the process's arguments); returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in argv
    try:
        status = _run(program, argv)
        sys.stdout.flush()
        return status
    except SystemExit as exit_:  # argparse after --help or --version
        return int(exit_.code or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone: there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except _EXPLAINED as error:
        return _report(error, as_json)
    except Exception as error:
        traceback.print_exc()
        if as_json:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return FAILED


def emit(args: argparse.Namespace, result: Mapping[str, Any], text: str) -> None:
    """Print a command's result on stdout: one JSON object under ``--json``, otherwise `text`."""
    print(json.dumps(result, ensure_ascii=False) if args.json else text, flush=True)


def make_folder(folder: Path, flag: str) -> None:
    """Create the folder that a flag names; called before the work, so a wrong path costs nothing.

    Raises:
        ValueError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{flag}: the folder {folder} cannot be written ({error.strerror or error}): choose "
            "another one"
        ) from error


def _run(program: Program, argv: list[str]) -> int:
    parser = _top_parser(program)
    # Only the first word selects: what follows belongs to the command.
    args, rest = parser.parse_known_args(argv[:1])
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}; the command comes first")
    if args.command is None:
        parser.print_help()
        return BAD_INPUT
    return _run_command(program, args.command, argv[1:])


def _top_parser(program: Program) -> argparse.ArgumentParser:
    width = max(map(len, program.commands))
    listing = "\n".join(f"  {name:<{width}}  {text}" for name, text in program.commands.items())
    parser = _Parser(
        prog=program.name,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=program.description,
        epilog=f"commands:\n{listing}\n\nexample:\n  {program.example}\n"
        f"  {program.name} COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"glm-lab {_version()}")
    parser.add_argument("command", nargs="?", choices=list(program.commands), metavar="COMMAND")
    return parser


def _run_command(program: Program, name: str, argv: list[str]) -> int:
    _share_the_cores()
    module = importlib.import_module(f"{program.package}.{name}")
    parser = _command_parser(f"{program.name} {name}", module)
    module.add_arguments(parser)
    if getattr(module, "TAKES_OVERRIDES", False):
        parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="hydra overrides")
        args = parser.parse_intermixed_args(argv)  # flags may stand between them
    else:
        args = parser.parse_args(argv)
    _log_to_stderr(program.package.partition(".")[0])
    return int(module.run(args))


def _share_the_cores() -> None:
    """Let waiting threads sleep soon; must come before torch loads its OpenMP.

    By default libgomp's threads spin while they wait. Where other programs use the same cores,
    they spin instead of letting the thread run that they wait for: a tiny training took 124 s
    rather than 9 s beside four other processes on two cores. Sleeping costs microseconds.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _command_parser(prog: str, module: ModuleType) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=module.HELP[:1].upper() + module.HELP[1:] + ".",
        epilog="example:\n" + textwrap.indent(textwrap.dedent(module.EXAMPLE).strip(), "  "),
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout; logs on stderr"
    )
    return parser


def _report(error: BaseException, as_json: bool) -> int:
    """Tell in one line what a person can mend, and return the exit status that goes with it."""
    if os.environ.get("GLM_TRACEBACK"):
        traceback.print_exception(error)
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"error: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message}, ensure_ascii=False))
    if isinstance(error, OSError | FloatingPointError) and not isinstance(error, _WRONG_PATH):
        return FAILED  # a full disk or a diverged run is no fault of the command line
    return BAD_INPUT


def _log_to_stderr(package: str) -> None:
    """Send the log of a package and of those beneath, progress included, to stderr, undecorated."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in {package: None, "glm_core": None, "glm_kernels": None}:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _version() -> str:
    try:
        return metadata.version("glm-lab")
    except metadata.PackageNotFoundError:
        return "(not installed)"
