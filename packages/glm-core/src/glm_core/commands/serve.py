"""``glm serve``: an OpenAI-compatible server."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from glm_core.cli import emit
from glm_core.commands.model_arguments import add_model_arguments, load_named_model

if TYPE_CHECKING:
    from fastapi import FastAPI

    from glm_core.infer.engine import EngineConfig
    from glm_core.serve.config import ServeConfig
    from glm_core.serve.models import ServedModel
    from glm_core.serve.workbench import Workbench

HELP = "serve models over HTTP, as OpenAI's API, with a page to chat"
EXAMPLE = """\
glm serve --model nano-text
glm serve --model chat=./glm-4-9b-chat --model nano-text --quantize int4 --port 8080
GLM_API_KEY=a-long-secret glm serve --model nano-text --host 0.0.0.0"""

MakeApp = Callable[["Sequence[ServedModel]", "ServeConfig", "Workbench"], "FastAPI"]
"""Makes the application of models, limits, and the page's tools."""
ReadyText = Callable[[Sequence[str], str, bool], str]
"""Tells of a server that is ready: the models' names, its address, whether it asks for a key."""
CACHE_DTYPES = ("model", "float32", "bfloat16", "float16")
INTERPRETERS = ("auto", "bubblewrap", "unshare", "unsafe-local")
logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_serve_arguments(parser)


def add_serve_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Declare the flags of every command that serves models.

    Args:
        default: the model that is served where none is named.
    """
    add_model_arguments(parser, default, several=True)
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="[MODEL:]NAME=FOLDER",
        help="LoRA of PEFT or tuned prefix, offered as MODEL:NAME beside the model (repeats)",
    )
    address = parser.add_argument_group("address")
    address.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    address.add_argument("--port", type=int, default=8000, help="0: any (default: %(default)s)")
    address.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="keys that let in, one a line; one more may stand in GLM_API_KEY",
    )
    address.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin in, such as https://example.org (repeats)",
    )
    address.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer on loopback to this name too (repeats)",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-running", type=int, help="answers decoded together (32)")
    limits.add_argument("--max-queued", type=int, help="requests that may wait (256)")
    limits.add_argument(
        "--cache-memory", metavar="SIZE", help="of keys and values, such as 2GB (half the free)"
    )
    limits.add_argument(
        "--cache-dtype",
        choices=CACHE_DTYPES,
        default=CACHE_DTYPES[0],
        help="of keys and values: 16 bits are faster with long texts, and rounded "
        "(default: %(default)s)",
    )
    limits.add_argument("--max-body", metavar="SIZE", help="largest request (16MiB)")
    limits.add_argument("--request-timeout", type=float, metavar="SECONDS", help="(600)")
    limits.add_argument(
        "--drain-timeout",
        type=float,
        metavar="SECONDS",
        help="for running requests at the end (30)",
    )
    page = parser.add_argument_group("page")
    page.add_argument(
        "--code-interpreter",
        nargs="?",
        const="auto",
        choices=INTERPRETERS,
        help="run the Python that a model writes on the page, in a sandbox (default: auto, the "
        "first that works here); unsafe-local is none",
    )
    page.add_argument(
        "--mcp",
        metavar="FILE",
        help="JSON file of MCP servers whose tools the page's models may use",
    )
    parser.add_argument(
        "--log-prompts", action="store_true", help="let the access log hold prompts and answers"
    )


def run(args: argparse.Namespace) -> int:
    """Load the models and serve until a signal comes."""
    return serve_models(args, _app, _ready_text)


def serve_models(args: argparse.Namespace, make_app: MakeApp, ready_text: ReadyText) -> int:
    """Loads the models that the flags name and serves them until a signal comes.

    Args:
        args: with the flags of `add_serve_arguments`.
        make_app: called once they are loaded.
        ready_text: what is shown once requests can come.
    """
    from glm_core.extras import require

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, extra="serve", package=module.replace("_", "-"))
    from glm_core.serve.memory import limit_arenas
    from glm_core.serve.process import bind, serve, url_of

    limit_arenas()
    config, engine_config = serve_config(args), engine_settings(args)
    named = named_models(args.model)
    adapters = named_adapters(args.adapter, list(named))
    with ExitStack() as stack:
        bound = stack.enter_context(bind(config))
        served: list[ServedModel] = []
        for name, path in named.items():
            one = argparse.Namespace(**{**vars(args), "model": path})
            served += stack.enter_context(opened(one, name, adapters[name], engine_config))
        workbench = opened_workbench(args, stack)
        app, url = make_app(served, config, workbench), url_of(bound)
        names = [model.name for model in served]
        result = {"url": url, "models": names}
        text = ready_text(names, url, bool(config.api_keys))
        serve(app, config, bound, lambda: emit(args, result, text))
    logger.info("stopped")
    return 0


def _app(served: Sequence[ServedModel], config: ServeConfig, workbench: Workbench) -> FastAPI:
    from glm_core.serve.app import create_app

    return create_app(served, config, workbench=workbench)


def _ready_text(names: Sequence[str], url: str, has_key: bool) -> str:
    from glm_core.serve.process import ready_text

    return ready_text(names, url, has_key)


def named_models(given: list[str]) -> dict[str, str]:
    """Returns paths by name; `name=path`, or a path whose last part is the name.

    Raises:
        ValueError: two models have the same name, or one has none.
    """
    models: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals:
            name, path = one.rstrip("/").rpartition("/")[2] or one, one
        if not name or not path:
            raise ValueError(f"--model {one}: write NAME=PATH, or a path alone")
        if name in models:
            raise ValueError(
                f"--model: two models are called {name}: give one another name, as in other={path}"
            )
        models[name] = path
    return models


def named_adapters(given: list[str], models: list[str]) -> dict[str, dict[str, str]]:
    """Returns folders by name for each model; `name=folder`, or `model:name=folder`.

    Raises:
        ValueError: an adapter has no name or no model, or two have the same name.
    """
    adapters: dict[str, dict[str, str]] = {model: {} for model in models}
    for one in given:
        label, _, folder = one.partition("=")
        model, colon, name = label.rpartition(":")
        if not colon and len(models) == 1:
            model = models[0]
        if not name or not folder or model not in adapters:
            raise ValueError(
                f"--adapter {one}: write NAME=FOLDER, or MODEL:NAME=FOLDER with one of the models "
                f"{', '.join(models)}"
            )
        if name in adapters[model]:
            raise ValueError(f"--adapter: {model} has two called {name}: give one another name")
        adapters[model][name] = folder
    return adapters


def opened_workbench(args: argparse.Namespace, stack: ExitStack) -> Workbench:
    """Returns the tools of the page, which the stack closes.

    Raises:
        ValueError: no sandbox works here, or the file of MCP servers cannot be used.
    """
    from glm_core.agent.executor import SandboxUnavailable, executor
    from glm_core.agent.mcp import McpTools, read_mcp_servers
    from glm_core.serve.interpreters import Interpreters
    from glm_core.serve.workbench import Workbench

    tools = stack.enter_context(McpTools(read_mcp_servers(args.mcp))).tools if args.mcp else ()
    kind, interpreters = args.code_interpreter, None
    if kind is not None:
        try:
            executor(kind).close()  # says now, not at the first question, what is missing
        except SandboxUnavailable as error:
            raise ValueError(f"--code-interpreter: {error}") from error
        if kind == "unsafe-local":
            logger.warning("the code that models write may do all that you may: unsafe-local")
        interpreters = Interpreters(lambda: executor(kind))
    workbench = Workbench(interpreters, tools)
    stack.callback(workbench.close)
    return workbench


def serve_config(args: argparse.Namespace) -> ServeConfig:
    """Returns the server's settings.

    Raises:
        ValueError: one is out of bounds, or the address needs a key.
    """
    from glm_core.checkpoint.device_memory import parse_memory
    from glm_core.serve.auth import read_keys
    from glm_core.serve.config import ServeConfig

    given = {
        "request_timeout_s": args.request_timeout,
        "drain_timeout_s": args.drain_timeout,
        "max_body_bytes": parse_memory(args.max_body, "--max-body") if args.max_body else None,
    }
    return ServeConfig(
        host=args.host,
        port=args.port,
        api_keys=read_keys(args.api_key_file),
        cors_origins=tuple(args.cors_origin),
        allowed_hosts=tuple(args.allow_host),
        log_prompts=args.log_prompts,
        **{name: value for name, value in given.items() if value is not None},
    )


def engine_settings(args: argparse.Namespace) -> EngineConfig:
    """Returns the engines' settings.

    Raises:
        ValueError: one is out of bounds.
    """
    from glm_core.checkpoint.device_memory import parse_memory
    from glm_core.infer.engine import EngineConfig

    memory = args.cache_memory
    given = {
        "max_running": args.max_running,
        "max_queued": args.max_queued,
        "cache_bytes": parse_memory(memory, "--cache-memory") if memory else None,
        "cache_dtype": args.cache_dtype,
    }
    return EngineConfig(**{name: value for name, value in given.items() if value is not None})


@contextmanager
def opened(
    args: argparse.Namespace, name: str, adapters: Mapping[str, str], config: EngineConfig
) -> Iterator[list[ServedModel]]:
    """Loads the model that `args.model` names; its engine is closed at the end.

    Returns:
        The model, and once more with each adapter, as `name:adapter`.
    """
    from dataclasses import replace

    from glm_core.chat.transcript import format_or_transcript
    from glm_core.infer.engine import Engine
    from glm_core.serve.models import ServedModel

    start = time.monotonic()
    logger.info("loading %s", args.model)
    loaded = load_named_model(args)
    config = replace(config, max_request_tokens=loaded.context)
    with Engine(loaded.model, loaded.tokenizer, config=config) as engine:
        for adapter, folder in adapters.items():
            engine.add_adapter(adapter, folder)
        logger.info("%s is ready after %.1f s", name, time.monotonic() - start)
        format = format_or_transcript(engine.tokenizer, engine.layout)
        plain = ServedModel(name=name, engine=engine, chat_format=format)
        yield [plain, *(replace(plain, name=f"{name}:{one}", adapter=one) for one in adapters)]
