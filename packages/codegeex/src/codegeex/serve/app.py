"""The application of `codegeex serve`: core's, with the editors' protocols before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fastapi import FastAPI

from codegeex.complete import Completer
from codegeex.complete.raw_prompt import text_ids
from codegeex.fim import fim_ids
from codegeex.hole import Hole
from codegeex.serve import demo, llama_cpp, mistral, ollama, openai, plugin, refact, tabby, tgi
from codegeex.serve.code import Code
from codegeex.serve.plain_bodies import PlainBodies
from codegeex.serve.shapes import SHAPES
from glm_core.infer.blanks import Prompt, ids_prompt
from glm_core.serve.app import create_app
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel
from glm_core.serve.workbench import Workbench

ROUTERS = (
    openai.router,
    tabby.router,
    llama_cpp.router,
    ollama.router,
    mistral.router,
    tgi.router,
    refact.router,
    plugin.router,
    demo.router,
)


def create_code_app(
    served: Sequence[ServedModel],
    completers: Mapping[str, Completer],
    config: ServeConfig | None = None,
    workbench: Workbench | None = None,
    newest_wins: bool = True,
) -> FastAPI:
    """Returns the application that serves models to editors, and to all clients of core's.

    Args:
        served: the models; whoever opened their engines closes them.
        completers: for those that complete code, by name.
        config: limits and keys.
        workbench: tools of the page.
        newest_wins: whether an automatic completion cancels what the same client asked for before.

    Raises:
        ValueError: no model completes code, or two have the same name.
    """
    by_engine = {id(completer.engine): completer for completer in completers.values()}
    models = [_with_code(one, by_engine.get(id(one.engine))) for one in served]
    app = create_app(models, config, ROUTERS, workbench, SHAPES, title="codegeex serve")
    app.state.code = Code(app.state.service, completers, newest_wins)
    app.add_middleware(PlainBodies)
    return app


def _with_code(served: ServedModel, completer: Completer | None) -> ServedModel:
    """Lets core's addresses fill in too, with adapters as well, and read templates."""
    if completer is None:
        return served
    format, room = completer.format, served.context - served.context // 4
    """Tokens that a hole may take, so that there are some for the answer."""

    def infill(before: str, behind: str) -> Prompt:
        assert format is not None
        hole = Hole(prefix=before, suffix=behind)
        return prompt_of(fim_ids(hole, format, served.tokenizer, room), before)

    def continuation(text: str) -> Prompt:
        return prompt_of(text_ids(text, format, served.tokenizer), text)

    def prompt_of(ids: list[int], text: str) -> Prompt:
        framed = served.layout.frame(ids, served.tokenizer)
        return replace(ids_prompt(framed, served.tokenizer, served.layout), text=text)

    return replace(served, infill=infill if format else None, continuation=continuation)
