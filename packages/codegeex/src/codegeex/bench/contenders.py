"""Who answers the editor: our server, and llama.cpp's with the same model."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from codegeex.bench.llama_export import export, unlike_llama
from codegeex.bench.plan import Plan
from glm_core.bench.ggml_peers import LLAMA_CPP
from glm_core.bench.machine import has_amx
from glm_core.bench.serve.llama_server import llama_server
from glm_core.bench.serve.servers import LlamaProcess, ServerProcess, free_port
from glm_core.checkpoint.loading import load_model
from glm_core.quantize.weight import QuantizedWeight

OURS = "ours"
_SERVE = "import sys; from codegeex.cli import main; sys.exit(main())"
_KINDS = {4: "Q4_0", 8: "Q8_0"}
"""Of llama.cpp's weights, by the bits of ours."""
_ANSWER = 320
"""Tokens of the context that our completer keeps for answers."""


@dataclass(frozen=True)
class Weights:
    """How a model's matrices are held in memory."""

    about: str
    kind: str
    """What llama.cpp has in their place."""
    context: int
    """Tokens of prompt and answer."""


def weights_of(model: str) -> Weights:
    """Looks at a model as `codegeex serve` loads it.

    Raises:
        CheckpointError, ValueError: there is no such model.
    """
    loaded, _ = load_model(model, progress=False)
    context = loaded.config.max_position_embeddings
    layouts = [m.layout for m in loaded.modules() if isinstance(m, QuantizedWeight)]
    if not layouts:
        return Weights(str(loaded.dtype).removeprefix("torch."), _KINDS[8], context)
    widest = max(layouts, key=lambda layout: layout.bits)
    return Weights(str(widest), _KINDS[widest.bits], context)


def our_server(plan: Plan, folder: Path) -> ServerProcess:
    """`codegeex serve` as anybody starts it.

    Args:
        folder: for its log.
    """
    command = [sys.executable, "-c", _SERVE, "serve", "--model", plan.model, "--port", "0"]
    if plan.context is not None:
        command += ["--context", str(plan.context)]
    return ServerProcess(
        OURS,
        [*command, "--json"],
        lambda tokens: {},
        environment={"OMP_NUM_THREADS": str(plan.threads)},
        log=folder / "ours.log",
    )


def llama_process(plan: Plan, weights: Weights, folder: Path, set_up: bool) -> ServerProcess:
    """llama.cpp's server, with the reason where it cannot run.

    Args:
        folder: for the model's file, until the server has ended.
        set_up: install and build it if it is missing.
    """
    program, port, command = llama_server(has_amx()), free_port(), list[str]()
    reason = program.set_up() if set_up else ""
    reason = reason or program.reason()
    if not reason:
        file = folder / "model.gguf"
        reason = _write_model(plan.model, weights.kind, program.environment.python, file)
        context = plan.context or weights.context
        command = _llama_command(program.path, file, port, plan.threads, context)
    return LlamaProcess(
        LLAMA_CPP,
        command,
        lambda tokens: {},
        reason=reason,
        port=port,
        about={"weights": weights.kind, "version": "" if reason else program.version()},
    )


def _write_model(name: str, kind: str, python: Path, file: Path) -> str:
    """Lets llama.cpp's environment write the model; returns why it cannot have it."""
    model, tokenizer = load_model(name, dtype=torch.float32, quantize="none", progress=False)
    unlike = unlike_llama(model.config, tokenizer)
    if unlike:
        return f"its llama has no {unlike}"
    export(model, tokenizer, file.parent)
    script = Path(__file__).with_name("llama_file.py")
    subprocess.run([python, script, file.parent, kind, file], check=True)
    return ""


def _llama_command(program: Path, file: Path, port: int, threads: int, context: int) -> list[str]:
    """One slot, set up as llama.vim asks, with prompts that begin with the suffix as the model was
    taught, and are as long as ours: its prompts for holes fill a batch."""
    most = str(context - min(_ANSWER, context * 5 // 16))
    return [
        *(str(program), "--model", str(file), "--host", "127.0.0.1", "--port", str(port)),
        *("--threads", str(threads), "--threads-batch", str(threads), "--parallel", "1"),
        *("--ctx-size", str(context), "--batch-size", most, "--ubatch-size", most),
        *("--spm-infill", "--cache-reuse", "256", "--no-webui", "--log-disable"),
    ]
