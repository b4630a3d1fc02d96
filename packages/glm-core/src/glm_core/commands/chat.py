"""``glm chat``: talks with a model in the terminal."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_core.commands.model_arguments import NamedModel, add_model_arguments, load_named_model

if TYPE_CHECKING:
    from glm_core.chat import ChatFormat, ChatSession

HELP = "talk with a model in the terminal"
EXAMPLE = """\
glm chat --model ./chatglm3-6b --dtype bfloat16
glm chat --model ./glm-4-9b-chat --quantize int4 --system "Answer in one sentence."
glm chat --model ./chatglm3-6b --tools weather.json --load yesterday.json
echo "What is a prefix language model?" | glm chat --model ./chatglm2-6b --json"""

FORMATS = ("chatglm", "chatglm2", "chatglm3", "chatglm3-compact", "glm4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; without one the model's own default."""
    add_model_arguments(parser)
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--load", metavar="FILE", help="go on with a conversation saved by /save")
    parser.add_argument("--tools", metavar="FILE", help="JSON list of the tools it may call")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="how the model reads a conversation (by its tokenizer); chatglm3-compact lists tools "
        "on one line, as composite_demo does",
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--max-new-tokens", type=int, help="longest answer (1024)")
    sampling.add_argument("--temperature", type=float, help="0 takes the most probable token")
    sampling.add_argument("--top-k", type=int, help="sample among the k most probable (all)")
    sampling.add_argument("--top-p", type=float, help="sample among this probability mass")
    sampling.add_argument("--min-p", type=float, help="sample above this share of the best (0)")
    sampling.add_argument("--repetition-penalty", type=float, help="above 1 repeats less (1)")
    sampling.add_argument("--seed", type=int, help="the same answers again (a new one each time)")


def run(args: argparse.Namespace) -> int:
    """Load the model and talk until the user leaves."""
    from glm_core.commands.chat_terminal import ChatTerminal

    tools = read_tools(args.tools)
    format = checked_format(args, tools)
    session = open_session(args, load_named_model(args), format, tools)
    ChatTerminal(session, is_interactive=sys.stdin.isatty(), as_json=args.json).run()
    return 0


def checked_format(args: argparse.Namespace, tools: list[dict[str, Any]]) -> ChatFormat:
    """The model's format. Tells what is wrong with the flags before the weights are read.

    Raises:
        ValueError: the model was not trained to chat, or a flag holds what it cannot do.
    """
    from glm_core.chat import Message, Role, chat_format, chat_format_for
    from glm_core.chat.saved import SavedChat, read_chat
    from glm_core.checkpoint.hub import resolve_model
    from glm_core.infer import SamplingConfig
    from glm_core.tokenizer import load_tokenizer

    SamplingConfig(**given_sampling(args))
    saved = read_chat(Path(args.load)) if args.load else SavedChat()
    tokenizer = load_tokenizer(resolve_model(args.model, weights=False), args.tokenizer_kind)
    format = chat_format(args.format) if args.format else chat_format_for(tokenizer.kind)
    text = saved.system if args.system is None else args.system
    system = [Message(Role.system, text)] if text else []
    messages = [*system, *saved.messages, Message(Role.user, "?")]
    format.encode(messages, tokenizer, tools or saved.tools)
    return format


def open_session(
    args: argparse.Namespace,
    loaded: NamedModel,
    format: ChatFormat,
    tools: list[dict[str, Any]],
) -> ChatSession:
    """The session that the flags describe."""
    from dataclasses import replace

    from glm_core.chat import ChatSession
    from glm_core.chat.session import default_sampling
    from glm_core.infer import TextGenerator

    given = {"seed": secrets.randbits(32)} | given_sampling(args)
    sampling = replace(default_sampling(format, loaded.context), **given)
    generator = TextGenerator(loaded.model, loaded.tokenizer)
    session = ChatSession(generator, format, sampling=sampling, context=loaded.context)
    if args.load:
        session.load(args.load, args.system, tools or None)
    else:
        session.configure(args.system or "", tools)
    return session


def given_sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `SamplingConfig` that the flags name."""
    from dataclasses import fields

    from glm_core.infer import SamplingConfig

    names = {field.name for field in fields(SamplingConfig)}
    return {
        name: value for name, value in vars(args).items() if name in names and value is not None
    }


def read_tools(path: str | None) -> list[dict[str, Any]]:
    """The tools in a JSON file.

    Raises:
        ValueError: the file is missing, or holds something else than a list of tools.
    """
    from glm_core.checkpoint.files import read_json

    if path is None:
        return []
    example = '[{"name": "get_weather", "description": ..., "parameters": {...}}]'
    tools = read_json(Path(path), f"--tools takes a JSON file such as {example}")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError(f"--tools: {path} must hold a list of tools, such as {example}")
    return tools
