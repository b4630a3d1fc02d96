"""One who answers requests one after the other, in a process of its own.

    python -m glm_core.bench.serve.sequential '{"contender": "sequential", "shape": "10m", ...}'

It serves rounds as contender.py says: each answers `requests` prompts like those that the servers
get, and the rate is that of new tokens, with the time of reading the prompts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from glm_core.bench.decode_workers import quantized_model, transformers_model
from glm_core.bench.serve.vocabulary import word_tokenizer
from glm_core.bench.serve.work import prompts
from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.infer.blanks import ids_prompt
from glm_core.infer.layout import CausalLayout

SEQUENTIAL, TRANSFORMERS = "sequential", "transformers"
Answer = Callable[[list[int]], object]


def ours(job: Mapping[str, Any]) -> tuple[dict[str, Any], Answer]:
    """`TextGenerator`, one prompt at a time."""
    model, weights = quantized_model(job)
    layout = CausalLayout()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = word_tokenizer(model.config.vocab_size, Path(folder))
    generator = TextGenerator(model, tokenizer, layout)
    config = SamplingConfig(max_new_tokens=job["tokens"], min_new_tokens=job["tokens"])

    def answer(ids: list[int]) -> object:
        return generator.fill_prompts([ids_prompt(ids, tokenizer, layout)], config)

    return {"weights": weights}, answer


def transformers(job: Mapping[str, Any]) -> tuple[dict[str, Any], Answer]:
    """transformers' `generate`, one prompt at a time."""
    model, about = transformers_model(job)
    fixed = {"max_new_tokens": job["tokens"], "min_new_tokens": job["tokens"], "do_sample": False}

    def answer(ids: list[int]) -> object:
        return model.generate(torch.tensor([ids]), **fixed)

    return {"weights": about["weights"]}, answer


ANSWERERS = {SEQUENTIAL: ours, TRANSFORMERS: transformers}


def main() -> None:
    """Builds the model and serves rounds until the input ends."""
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    about, answer = ANSWERERS[job["contender"]](job)
    print(json.dumps(about), flush=True)
    for number, _ in enumerate(sys.stdin):
        given = prompts(job["requests"], job["prompt"], job["vocab_size"], seed=number)
        start = time.perf_counter()
        for ids in given:
            answer(ids)
        seconds = time.perf_counter() - start
        print(json.dumps({"rate": job["requests"] * job["tokens"] / seconds}), flush=True)


if __name__ == "__main__":
    main()
