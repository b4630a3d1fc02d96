"""Who answers the requests of `glm bench serve`, and how each is started."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_core.bench.contender import Contender
from glm_core.bench.decode import shape_config
from glm_core.bench.ggml_peers import LLAMA_CPP, settings_of, unlike_chatglm
from glm_core.bench.machine import has_amx
from glm_core.bench.serve.llama_server import llama_server
from glm_core.bench.serve.servers import LlamaProcess, ServerProcess, free_port, llama_command
from glm_core.bench.serve.vocabulary import word_tokenizer, write_pieces
from glm_core.bench.serve.work import longest

VARIANT = "Q4_0"
"""Of llama.cpp's weights: the faster of its 4-bit kinds in `glm bench decode`."""
_SLOT_STEP = 256
"""llama.cpp rounds the room of a slot up to this."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    shape: str = "chatglm3-6b"
    layers: int = 2
    streams: tuple[int, ...] = (1, 8, 32, 64)
    """Requests under way together, one measurement for each."""
    prompt: int = 128
    """Mean number of tokens of a prompt."""
    tokens: int = 64
    """Of every answer."""
    rounds: int = 3
    per_stream: int = 2
    """Requests of each stream in a round, one after the other."""
    threads: int = 2
    """Of each server's model; the client needs a little of the same processor."""

    def __post_init__(self) -> None:
        if not self.streams or min(self.streams) < 1:
            raise ValueError(f"--streams is {self.streams}: each must be at least 1")
        config = shape_config(self.shape, self.layers)
        needed = longest(self.prompt) + self.tokens
        if needed > config.max_position_embeddings:
            raise ValueError(
                f"--prompt {self.prompt} and --tokens {self.tokens} need {needed} positions: "
                f"{self.shape} has {config.max_position_embeddings}"
            )


def job_of(plan: Plan) -> dict[str, Any]:
    """What the processes are told."""
    return {
        "shape": plan.shape,
        "layers": plan.layers,
        "bits": 4,
        "threads": plan.threads,
        "streams": max(plan.streams),
        "tokens": plan.tokens,
    }


def one_by_one(plan: Plan, name: str) -> Contender:
    """One who answers one request after the other.

    Args:
        name: of a contender of sequential.py.
    """
    config = shape_config(plan.shape, plan.layers)
    job = {
        **job_of(plan),
        "contender": name,
        "prompt": plan.prompt,
        "vocab_size": config.vocab_size,
        "requests": 4,
    }
    return Contender(job, [sys.executable, "-m", "glm_core.bench.serve.sequential"])


def llama_process(plan: Plan, set_up: bool) -> ServerProcess:
    """llama.cpp's server, with the reason where it cannot run.

    Args:
        set_up: install and build it if it is missing.
    """
    program, config = llama_server(has_amx()), shape_config(plan.shape, plan.layers)
    reason = unlike_chatglm(config)
    reason = f"its chatglm has no {reason}" if reason else ""
    if set_up and not reason:
        reason = program.set_up()
    reason = reason or program.reason()
    job = {**job_of(plan), "variant": VARIANT, "only": "write", "port": free_port()}
    command: list[str] = []
    if not reason:
        model = _model_file(plan, str(program.environment.python), job)
        context = -(-(longest(plan.prompt) + plan.tokens) // _SLOT_STEP) * _SLOT_STEP
        command = llama_command(program.path, model, job, context)
    return LlamaProcess(
        LLAMA_CPP,
        command,
        lambda tokens: {"ignore_eos": True},
        reason=reason,
        port=job["port"],
        about={"weights": VARIANT, "version": "" if reason else program.version()},
    )


def _model_file(plan: Plan, python: str, job: dict[str, Any]) -> Path:
    """Lets llama.cpp's environment write the model."""
    config = shape_config(plan.shape, plan.layers)
    script = Path(__file__).parents[1] / "llama_worker.py"
    with tempfile.TemporaryDirectory() as folder:
        pieces = Path(folder) / "pieces.json"
        write_pieces(word_tokenizer(config.vocab_size, Path(folder)), pieces)
        settings = settings_of(config) | {"vocabulary": str(pieces)}
        command = [python, str(script), json.dumps(settings), json.dumps(job)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Path(run.stdout.strip())
