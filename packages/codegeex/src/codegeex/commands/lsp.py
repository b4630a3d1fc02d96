"""``codegeex lsp``: completions for an editor, as a language server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from glm_core.commands.model_arguments import add_model_arguments, load_named_model

if TYPE_CHECKING:
    from codegeex.complete import Completer

HELP = "serve completions to an editor as a language server, over stdin and stdout"
EXAMPLE = """\
codegeex lsp
codegeex lsp --model ./my-code-model
codegeex lsp --model ./codegeex4-all-9b --quantize int4 --fim-format codegeex4"""

_AT_ONCE = 8
"""Answers decoded together: an editor has one file in front, and a few candidates."""
logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_model_arguments(parser, default="nano-code")
    parser.add_argument(
        "--fim-format",
        metavar="NAME",
        help="how the model was taught to fill in: spm, psm or codegeex4 (what its folder or "
        "tokenizer tells)",
    )


def run(args: argparse.Namespace) -> int:
    """Answer an editor until it takes its leave."""
    from glm_core.extras import require

    for module in ("lsprotocol", "pygls"):
        require(module, extra="codegeex")
    from codegeex.lsp.late import LateCompleter
    from codegeex.lsp.server import CodeServer
    from codegeex.lsp.stdio import converse, log_pygls, own_stdio
    from glm_core import __version__
    from glm_core.serve.memory import limit_arenas

    limit_arenas()
    log_pygls()
    if sys.stdin.isatty():
        logger.info("an editor starts this, and talks to it through standard input; Ctrl+C stops")
    model = LateCompleter(lambda: _load(args), Path(args.model).name)
    server = CodeServer(model, __version__)
    try:
        status = asyncio.run(converse(server.protocol, *own_stdio()))
    finally:
        server.close()
    if model.is_loading:
        os._exit(status)  # nothing else ends a thread that is importing or reading weights
    return status


def _load(args: argparse.Namespace) -> Completer:
    from codegeex.complete import Completer
    from codegeex.fim import format_of_model
    from glm_core.infer.engine import Engine, EngineConfig

    start = time.monotonic()
    loaded = load_named_model(args)
    format = format_of_model(args.model, loaded.tokenizer, args.fim_format)
    config = EngineConfig(max_running=_AT_ONCE, max_request_tokens=loaded.context)
    engine = Engine(loaded.model, loaded.tokenizer, config=config)
    logger.info("%s is loaded after %.1f s", args.model, time.monotonic() - start)
    return Completer(engine, format, args.model)
