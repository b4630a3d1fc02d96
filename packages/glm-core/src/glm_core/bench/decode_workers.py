"""One contender of `glm bench decode` in a process of its own.

    python -m glm_core.bench.decode_workers '{"contender": "ours", "shape": "10m", ...}'

It builds its model with random weights and serves rounds as contender.py says. A round writes
`tokens` tokens after a short prompt, whose reading is not part of it; or, where the job's `prompt`
is not 0, it reads a prompt of so many tokens, up to the logits after the last one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glm_core.bench.decode import EIGHT_BIT, OURS, READ, shape_config
from glm_core.bench.random_weights import fill_, random_bytes, random_model
from glm_core.infer.batch import DecodingBatch, RowStart
from glm_core.model import Transformer, TransformerConfig
from glm_core.quantize import QuantizeConfig, quantize_, set_prompt_activation_bits
from glm_kernels import ActivationBits
from glm_kernels.memory import empty_on_huge_pages

SHORT_PROMPT = 8
"""Columns read before the first token is written."""
GROUP = 32
READ_BYTES = 1 << 30
About = dict[str, Any]
Round = Callable[[], float]
"""Computes a round; returns how many tokens a second."""


def ours(job: Mapping[str, Any]) -> tuple[About, Round]:
    """This repository: group-wise int4, int8 rows, or fp32."""
    if job["bits"] == 32:
        model = random_model(shape_config(job["shape"], job["layers"])).float()
        fill_(model)
        about = {"weights": "fp32", "activations": "fp32"}
    else:
        model, weights = quantized_model(job)
        bits: ActivationBits = 8 if job.get("variant") == EIGHT_BIT else 15
        set_prompt_activation_bits(model, bits)
        about = {"weights": weights, "activations": f"bf16; {bits} bits in products"}
    return about | {"bytes": bytes_read(model)}, rounds_of(model, job)


def quantized_model(job: Mapping[str, Any]) -> tuple[Transformer, str]:
    """Our model with weights of the job's bits, and what these are."""
    model = random_model(shape_config(job["shape"], job["layers"]))
    group = GROUP if job["bits"] == 4 else 0
    # the embeddings are read one row at a time: only as a head do they count
    config = QuantizeConfig(bits=job["bits"], group=group, embeddings=True, head=True)
    quantize_(model, config)
    fill_(model)
    return model, str(config.layout)


def torch_int4(job: Mapping[str, Any]) -> tuple[About, Round]:
    """The same loop, with bf16 activations and every matrix in torch's own int4 product."""
    model = model_of_products(job, TorchInt4Linear)
    about = {"weights": f"int4 groups of {GROUP} by torch's product", "activations": "bf16"}
    return about | {"bytes": bytes_read(model)}, rounds_of(model, job)


def model_of_products(
    job: Mapping[str, Any], kind: Callable[[nn.Linear], nn.Module]
) -> Transformer:
    """Our model with another kind of module in place of every linear layer and of the head."""
    model = random_model(shape_config(job["shape"], job["layers"]))
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            owner = model.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], kind(module))
    fill_(model)
    if model.output_layer is None:  # torch's product cannot look rows up: the head is a copy
        head = nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
        model.output_layer = kind(head)  # type: ignore[assignment]
    model.logits = model.output_layer.__call__  # type: ignore[method-assign, operator]
    return model


def transformers(job: Mapping[str, Any]) -> tuple[About, Round]:
    """transformers' GLM: `generate`, or one call for a prompt; bf16; fp32 where we run in fp32."""
    model, about = transformers_model(job)
    batch, prompt = job["batch"], job["prompt"]
    ids = torch.ones(batch, prompt or SHORT_PROMPT, dtype=torch.int64)

    def write() -> float:
        clock = Clock()
        new = job["tokens"] + 1
        model.generate(ids, streamer=clock, max_new_tokens=new, min_new_tokens=new, do_sample=False)
        return float(batch * job["tokens"] / (clock.times[-1] - clock.times[1]))

    def read() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            model(ids, use_cache=True, logits_to_keep=1)
        return float(batch * prompt / (time.perf_counter() - start))

    return about, read if prompt else write


def transformers_model(job: Mapping[str, Any]) -> tuple[Any, About]:
    """transformers' GLM with random weights, and what these are."""
    from transformers import GlmConfig, GlmForCausalLM

    config = shape_config(job["shape"], job["layers"])
    dtype, name = (torch.float32, "fp32") if job["bits"] == 32 else (torch.bfloat16, "bf16")
    with torch.device("meta"):
        model: Any = GlmForCausalLM(GlmConfig(**peer_settings(config)))
    model = model.to(dtype).eval()
    fill_(model)
    model.tie_weights()
    # its buffers are tables, on the meta device too
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    count = sum(p.nbytes for p in model.parameters())
    if not config.tie_embeddings:
        count -= model.get_input_embeddings().weight.nbytes
    return model, {"weights": name, "activations": name, "bytes": count}


def read_memory(job: Mapping[str, Any]) -> tuple[About, Round]:
    """GB/s of fp32 matrix-vector products over more memory than caches hold."""
    width = 4096
    matrix = empty_on_huge_pages((READ_BYTES // 4 // width, width), torch.float32).fill_(0.5)
    vector = torch.ones(width)

    def run() -> float:
        rates = []
        for _ in range(3):
            start = time.perf_counter()
            torch.mv(matrix, vector)
            rates.append(READ_BYTES / (time.perf_counter() - start) / 1e9)
        return max(rates)

    return {"weights": "fp32", "activations": "fp32", "bytes": READ_BYTES}, run


class TorchInt4Linear(nn.Module):
    """A linear layer with torch's own int4 product, random levels."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rows, columns = linear.weight.shape
        self.levels = random_bytes((rows, columns // 2), torch.uint8)
        self.scales = torch.full((columns // GROUP, rows, 2), 1e-3, dtype=torch.bfloat16)
        self.bias = None
        if linear.bias is not None:
            self.bias = nn.Parameter(torch.zeros(rows, dtype=torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.reshape(-1, x.shape[-1]).contiguous(), self.levels, GROUP, self.scales
        )
        out = out.view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias


class Clock:
    """Takes the place of a streamer: notes when each token comes."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to write."""


def rounds_of(model: Transformer, job: Mapping[str, Any]) -> Round:
    """Greedy decoding, all texts together; or reading a prompt of each."""
    batch, tokens, prompt = job["batch"], job["tokens"], job["prompt"]
    length = prompt or SHORT_PROMPT
    start = RowStart([1] * length, [(column, 0) for column in range(length)], 0)

    def write() -> float:
        texts = DecodingBatch(model, [start] * batch, length + tokens)
        began = time.perf_counter()
        for column in range(length, length + tokens):
            chosen = texts.logits_BV.argmax(-1).tolist()
            texts.step([(token, (column, 0)) for token in chosen])
        return float(batch * tokens / (time.perf_counter() - began))

    def read() -> float:
        began = time.perf_counter()
        DecodingBatch(model, [start] * batch, length)
        return float(batch * prompt / (time.perf_counter() - began))

    return read if prompt else write


def bytes_read(model: Transformer) -> int:
    """Bytes of weights that every token reads."""
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        if isinstance(module, TorchInt4Linear):
            tensors += [module.levels, module.scales]
    total = sum(tensor.nbytes for tensor in {id(t): t for t in tensors}.values())
    if model.output_layer is None:
        return total
    table = [*model.word_embeddings.parameters(), *model.word_embeddings.buffers()]
    return total - sum(tensor.nbytes for tensor in table)


def peer_settings(config: TransformerConfig) -> dict[str, Any]:
    """transformers' description of the same model."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn_hidden_size,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.norm_eps,
        "attention_bias": config.qkv_bias,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": None,
        "eos_token_id": None,
        "attn_implementation": "sdpa",
    }


RUNNERS = {
    OURS: ours,
    "torch-int4": torch_int4,
    "transformers": transformers,
    READ: read_memory,
}


def runners(device: str) -> Mapping[str, Callable[[Mapping[str, Any]], tuple[About, Round]]]:
    """The contenders of a device, by name."""
    if device == "cpu":
        return RUNNERS
    from glm_core.bench import decode_gpu

    return decode_gpu.RUNNERS


def main() -> None:
    """Builds the contender of the command line's job and serves rounds until the input ends."""
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    about, run = runners(job["device"])[job["contender"]](job)
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"rate": run()}), flush=True)


if __name__ == "__main__":
    main()
