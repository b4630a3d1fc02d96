"""The subcommands of ``glm``: one module each, imported only when it is asked for.

A command module offers:

- ``HELP: str``: one line for ``glm --help``. The dispatcher reads it from `COMMANDS` below, so
  that ``glm --help`` imports no command and no torch; a test keeps the two equal.
- ``EXAMPLE: str``: shell lines for the end of ``glm COMMAND --help``.
- ``add_arguments(parser)``: the flags. ``--json`` is already there. Nothing heavy is imported at
  the top of a command module: argparse, and what is needed to list choices.
- ``run(args) -> int``: does the work and returns the exit status, 0 or 1. Results go to stdout by
  ``glm_core.cli.emit(args, result, text)``: ``result`` as one JSON object under ``--json``,
  ``text`` otherwise. Progress goes through ``logging`` (which is on stderr).
- ``TAKES_OVERRIDES = True`` where the remaining arguments are hydra overrides (``train``): they
  arrive as ``args.overrides: list[str]``.

What a person can mend is raised as ``ValueError`` (or ``OSError``): one line on stderr, exit
status 2. Any other exception is a defect: traceback, exit status 1.
"""

from __future__ import annotations

COMMANDS: dict[str, str] = {
    "train": "pretrain a GLM; the same command again resumes",
    "generate": "fill the blanks of a text, or continue it",
    "convert": "convert released checkpoints from one format to another",
    "quantize": "quantize a folder of weights to 8 or 4 bits, and measure what it costs",
    "chat": "talk with a model in the terminal",
    "serve": "serve models over HTTP, as OpenAI's API, with a page to chat",
    "evaluate": "held-out bits per byte, blank filling and last-word accuracy",
    "explain": "show tokens, positions, mask and labels of a training sample",
    "bench": "measure speed and peak memory, against what people use today",
    "demo": "fill blanks, continue text and train live; writes a page with the results",
}
