"""``codegeex train``: train a code model."""

from __future__ import annotations

import argparse

from glm_core.commands.training import add_train_arguments, run_train

HELP = "train a code model; the same command again resumes"
EXAMPLE = """\
codegeex train experiment=debug run_dir=outputs/codegeex_debug
codegeex train experiment=my_code data.source=outputs/my_data run_dir=outputs/mine
codegeex train experiment=nano_code --dry-run

Ctrl-C (or SIGTERM) finishes the step, saves and exits with status 0; the same command resumes."""
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_train_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Compose the config, then plan or train."""
    from codegeex.training.run import TRAIN, train

    return run_train(args, "codegeex", TRAIN, lambda config: config.data.seq_length, train)
