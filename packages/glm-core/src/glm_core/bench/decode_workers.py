"""One contender of `glm bench decode` in a process of its own.

    python -m glm_core.bench.decode_workers '{"contender": "ours", "shape": "10m", ...}'

It builds its model with random weights and says what it is in one line of JSON; then, for each line
it reads, it writes `tokens` tokens after a short prompt and answers with the rate. Reading the
prompt is not part of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glm_core.bench.decode import READ, shape_config
from glm_core.infer.batch import DecodingBatch, RowStart
from glm_core.model import Transformer, TransformerConfig
from glm_core.quantize import Layout, QuantizeConfig, QuantizedEmbedding, quantize_
from glm_core.quantize.matrix import QuantizedMatrix
from glm_core.quantize.weight import QuantizedWeight, has_kernel
from glm_kernels import PackedWeight
from glm_kernels.memory import empty_on_huge_pages
from glm_kernels.weight_only import BLOCK, UNIT

PROMPT = 8
"""Columns read before the first token is written."""
GROUP = 32
READ_BYTES = 1 << 30
NOISE = torch.randint(0, 256, (1 << 24,), dtype=torch.uint8)
Round = Callable[[], float]
"""Writes the tokens of a round; returns how many a second."""


def ours(job: Mapping[str, Any]) -> tuple[dict[str, Any], Round]:
    """This repository: group-wise int4, int8 rows, or fp32."""
    model, config = random_model(shape_config(job["shape"], job["layers"])), None
    if job["bits"] == 32:
        fill_(model.float())
    else:
        group = GROUP if job["bits"] == 4 else 0
        # the embeddings are read one row at a time: only as a head do they count
        config = QuantizeConfig(bits=job["bits"], group=group, embeddings=True, head=True)
        quantize_(model, config)
        fill_(model)
    weights = "fp32" if config is None else str(config.layout)
    return {"weights": weights, "bytes": bytes_read(model)}, decoding(model, job)


def torch_int4(job: Mapping[str, Any]) -> tuple[dict[str, Any], Round]:
    """The same loop, with bf16 activations and every matrix in torch's own int4 product."""
    model = random_model(shape_config(job["shape"], job["layers"]))
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            owner = model.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], TorchInt4Linear(module))
    fill_(model)
    if model.output_layer is None:  # torch's product cannot look rows up: the head is a copy
        head = nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
        model.output_layer = TorchInt4Linear(head)  # type: ignore[assignment]
    model.logits = model.output_layer.__call__  # type: ignore[method-assign, operator]
    weights = f"int4 groups of {GROUP} by torch's product"
    return {"weights": weights, "bytes": bytes_read(model)}, decoding(model, job)


def transformers(job: Mapping[str, Any]) -> tuple[dict[str, Any], Round]:
    """transformers' GLM: `generate`, bf16; fp32 where we run in fp32."""
    from transformers import GlmConfig, GlmForCausalLM

    config = shape_config(job["shape"], job["layers"])
    dtype = torch.float32 if job["bits"] == 32 else torch.bfloat16
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
    ids = torch.ones(job["batch"], PROMPT, dtype=torch.int64)

    def run() -> float:
        clock = Clock()
        new = job["tokens"] + 1
        model.generate(ids, streamer=clock, max_new_tokens=new, min_new_tokens=new, do_sample=False)
        return float(job["batch"] * job["tokens"] / (clock.times[-1] - clock.times[1]))

    return {"weights": str(dtype).removeprefix("torch."), "bytes": count}, run


def read_memory(job: Mapping[str, Any]) -> tuple[dict[str, Any], Round]:
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

    return {"weights": "fp32", "bytes": READ_BYTES}, run


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


def decoding(model: Transformer, job: Mapping[str, Any]) -> Round:
    """Greedy decoding, all texts together."""
    start = RowStart([1] * PROMPT, [(column, 0) for column in range(PROMPT)], 0)
    batch, tokens = job["batch"], job["tokens"]

    def run() -> float:
        texts = DecodingBatch(model, [start] * batch, PROMPT + tokens)
        began = time.perf_counter()
        for column in range(PROMPT, PROMPT + tokens):
            chosen = texts.logits_BV.argmax(-1).tolist()
            texts.step([(token, (column, 0)) for token in chosen])
        return float(batch * tokens / (time.perf_counter() - began))

    return run


def random_model(config: TransformerConfig) -> Transformer:
    """A model in bf16 whose weights are still to come."""
    with torch.device("meta"):
        return Transformer(config).bfloat16().eval()


def fill_(model: nn.Module) -> None:
    """Gives everything on the meta device memory, quantized matrices random levels."""
    noise = torch.randn(1 << 20) * 0.02
    for module in model.modules():
        if isinstance(module, QuantizedWeight):
            fill_quantized(module)
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta or not isinstance(module, TorchInt4Linear):
                value = torch.empty(parameter.shape, dtype=parameter.dtype)
                for part in torch.split(value.view(-1), noise.numel()):
                    part.copy_(noise[: part.numel()])
                setattr(module, name, nn.Parameter(value, requires_grad=False))


def fill_quantized(module: QuantizedWeight) -> None:
    """Random levels and one scale; what multiplies is made in the kernels' order, because bringing
    6 B of levels into it takes minutes."""
    (rows, columns), layout = module._size, module.layout
    scale = 0.1 / 2**layout.bits
    if isinstance(module, QuantizedEmbedding):
        module.like = torch.empty(0, dtype=module.like.dtype)
    if has_kernel(torch.device("cpu")) and getattr(module, "is_head", True):
        module.weight = module.weight_scale = None
        module._set_packed(random_packed(rows, columns, layout, scale))
        return
    levels = random_bytes((rows, columns * layout.bits // 8), torch.int8)
    scales = torch.full(layout.kinds(rows, columns)["_scale"][1], scale, dtype=torch.float16)
    module.set_matrix(QuantizedMatrix(levels, scales, None, layout))


def random_packed(rows: int, columns: int, layout: Layout, scale: float) -> PackedWeight:
    """A packed weight of random levels."""
    blocks, units = -(-rows // BLOCK), -(-columns // UNIT)
    levels = random_bytes((blocks, units * UNIT * BLOCK * layout.bits // 8), torch.uint8)
    shape = (blocks, layout.groups(columns), BLOCK)
    return PackedWeight(
        levels=levels,
        scales=empty_on_huge_pages(shape, torch.float16).fill_(scale),
        zeros=None,
        out_features=rows,
        in_features=columns,
        bits=layout.bits,
        group=layout.group or None,
    )


def random_bytes(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Bytes of all values, the same ones again after a while."""
    out = empty_on_huge_pages(shape, dtype)
    for part in torch.split(out.view(-1), NOISE.numel()):
        part.copy_(NOISE[: part.numel()].view(dtype))
    return out


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
    "ours": ours,
    "torch-int4": torch_int4,
    "transformers": transformers,
    READ: read_memory,
}


def main() -> None:
    """Builds the contender of the command line's job and serves rounds until the input ends."""
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    about, run = RUNNERS[job["contender"]](job)
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"rate": run()}), flush=True)


if __name__ == "__main__":
    main()
