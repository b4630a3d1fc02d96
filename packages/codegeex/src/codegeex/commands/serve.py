"""``codegeex serve``: completions for editors over HTTP."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from glm_core.commands.serve import add_serve_arguments, named_models, serve_models

if TYPE_CHECKING:
    from fastapi import FastAPI

    from codegeex.complete import Completer
    from glm_core.serve.config import ServeConfig
    from glm_core.serve.models import ServedModel
    from glm_core.serve.workbench import Workbench

HELP = "serve completions to editors over HTTP, in the protocols of their plugins"
EXAMPLE = """\
codegeex serve
codegeex serve --model nano-code --port 8012
codegeex serve --model codegeex4=./codegeex4-all-9b --quantize int4 --fim-format codegeex4"""

DEFAULT_MODEL = "nano-code"
logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_serve_arguments(parser, default=DEFAULT_MODEL)
    parser.set_defaults(cache_dtype="float16")  # prompts are long and answers short: much faster
    editors = parser.add_argument_group("editors")
    editors.add_argument(
        "--fim-format",
        metavar="NAME",
        help="how the models were taught to fill in: spm, psm or codegeex4 (as each tells)",
    )
    editors.add_argument(
        "--keep-older",
        action="store_true",
        help="answer older requests of an editor too when a newer one has come",
    )


def run(args: argparse.Namespace) -> int:
    """Load the models and serve until a signal comes."""
    from codegeex.fim import find_format

    if args.fim_format is not None:
        find_format(args.fim_format)  # before the models are loaded
    return serve_models(args, partial(_app, args), _ready_text)


def _app(
    args: argparse.Namespace,
    served: Sequence[ServedModel],
    config: ServeConfig,
    workbench: Workbench,
) -> FastAPI:
    from codegeex.serve.app import create_code_app

    completers = completers_of(served, named_models(args.model), args.fim_format)
    return create_code_app(
        served, completers, config, workbench=workbench, newest_wins=not args.keep_older
    )


def completers_of(
    served: Sequence[ServedModel], paths: Mapping[str, str], format_name: str | None
) -> dict[str, Completer]:
    """Returns what completes code, by name, for the models that can.

    Args:
        served: models; their adapters have none of their own.
        paths: where each was loaded from, by name.
        format_name: of all of them; None: what each tells.

    Raises:
        ValueError: the format is unknown.
    """
    from codegeex.complete import Completer
    from codegeex.fim import format_of_model

    found: dict[str, Completer] = {}
    for model in served:
        if model.adapter or model.engine.layout.has_blanks:
            continue
        format = format_of_model(paths[model.name], model.tokenizer, format_name)
        if format is None:
            logger.warning(
                "%s was not taught to fill in: it goes on from what is before the cursor",
                model.name,
            )
        elif "codegeex" in model.name.lower() and format.name != "codegeex4":
            logger.warning(
                "%s has codegeex in its name but the format %s: plugins such as Continue would "
                "send it the template of CodeGeeX4; call it something else, as in --model other=%s",
                model.name,
                format.name,
                paths[model.name],
            )
        found[model.name] = Completer(model.engine, format, model.name)
    return found


def _ready_text(names: Sequence[str], url: str, has_key: bool) -> str:
    """Returns what the start shows: where editors find what."""
    key = ' -H "Authorization: Bearer $GLM_API_KEY"' if has_key else ""
    body = json.dumps({"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n"})
    return (
        f"serving {', '.join(names)} at {url}\n"
        f"  OpenAI       {url}/v1           Continue, minuet, llm-ls, Copilot's proxies\n"
        f"  Ollama       {url}              Continue, Twinny, llm-ls, CodeGeeX\n"
        f"  llama.cpp    {url}/infill       llama.vim, llama.vscode\n"
        f"  Tabby        {url}              Tabby's agent\n"
        f"  more         {url}/docs, the page at {url}/, numbers at {url}/metrics\n"
        f"  ask          curl {url}/infill{key} \\\n"
        f"                 -H 'Content-Type: application/json' -d '{body}'\n"
        "  stop         Ctrl+C"
    )
