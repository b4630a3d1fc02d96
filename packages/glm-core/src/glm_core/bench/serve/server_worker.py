"""Our server with a random model, in a process of its own.

    python -m glm_core.bench.serve.server_worker '{"shape": "10m", "streams": 64, ...}'

It prints one line of JSON, the address and what the model is, and serves until SIGTERM.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from glm_core.bench.decode_workers import quantized_model
from glm_core.bench.serve.vocabulary import word_tokenizer
from glm_core.bench.serve.work import MODEL
from glm_core.chat.transcript import format_or_transcript
from glm_core.infer.engine import Engine, EngineConfig
from glm_core.infer.layout import CausalLayout
from glm_core.serve.app import create_app
from glm_core.serve.config import ServeConfig
from glm_core.serve.memory import limit_arenas
from glm_core.serve.models import ServedModel
from glm_core.serve.process import bind, serve, url_of


def main() -> None:
    job: Mapping[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    limit_arenas()
    model, weights = quantized_model(job)
    layout = CausalLayout()
    config = replace(EngineConfig(max_running=job["streams"]), **job.get("engine", {}))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = word_tokenizer(model.config.vocab_size, Path(folder))
    settings = ServeConfig(port=0)
    with Engine(model, tokenizer, layout, config) as engine, bind(settings) as bound:
        format = format_or_transcript(tokenizer, layout)
        app = create_app([ServedModel(name=MODEL, engine=engine, chat_format=format)], settings)
        about = {"url": url_of(bound), "weights": weights}
        serve(app, settings, bound, lambda: print(json.dumps(about), flush=True))


if __name__ == "__main__":
    main()
