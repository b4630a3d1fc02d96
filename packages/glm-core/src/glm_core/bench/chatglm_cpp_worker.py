"""chatglm.cpp's process of `glm bench decode`; runs in its own environment, without this package.

    python chatglm_cpp_worker.py '{"vocab_size": ...}' '{"variant": "Q4_0", "tokens": 16, ...}'

Writes a file of the shape with random weights in chatglm.cpp's format, unless it is there already,
and serves rounds as contender.py says.

The file: b"ggml", the kind of model and the version of the settings as int32, the settings, the
vocabulary's length and text, then each tensor: its name's length and name, its number of axes, its
shape, its kind, and from the next address divisible by 16 its data.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import base64
import json
import struct
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import chatglm_cpp._C as chatglm
import numpy as np

CHATGLM4 = 4  # the same model as ChatGLM3; its vocabulary is text, so that it can be made up
SETTINGS_VERSION = 2
SHORT_PROMPT = 8
MAX_LENGTH = 2048
ALIGNMENT = 16
F32 = 0
KINDS = {"Q4_0": 2, "Q8_0": 8}
BLOCK = 32
LEVEL_BYTES = {"Q4_0": 16, "Q8_0": 32}
"""Of a block, after its fp16 scale."""


def write_model(shape: dict[str, Any], variant: str, path: Path) -> None:
    """A model of random levels, all matrices of one kind."""
    heads, kv_heads = shape["num_heads"], shape["num_kv_heads"]
    hidden, ffn, vocab = shape["hidden_size"], shape["ffn_hidden_size"], shape["vocab_size"]
    qkv = (heads + 2 * kv_heads) * (hidden // heads)
    numbers = np.random.default_rng(0)

    def matrix(name: str, rows: int, columns: int) -> None:
        size = rows * columns // BLOCK
        data = np.frombuffer(numbers.bytes(size * (2 + LEVEL_BYTES[variant])), dtype=np.uint8)
        blocks = data.reshape(size, -1).copy()
        blocks[:, :2] = np.full(1, 1e-3, dtype=np.float16).view(np.uint8)
        write_tensor(file, name, (rows, columns), KINDS[variant], blocks)

    def vector(name: str, size: int, value: float) -> None:
        write_tensor(file, name, (size,), F32, np.full(size, value, dtype=np.float32))

    with path.open("wb") as file:
        file.write(b"ggml" + struct.pack("ii", CHATGLM4, SETTINGS_VERSION))
        layers, theta = shape["num_layers"], shape["rope_theta"]
        sizes = (KINDS[variant], vocab, hidden, heads, kv_heads, layers, ffn)
        ends = (-1, -1)  # no token ends a text, none is padding
        file.write(struct.pack("iiiiiii", *sizes))
        file.write(struct.pack("fifiii", shape["norm_eps"], 0, theta, MAX_LENGTH, *ends))
        tokens = [base64.b64encode(bytes([byte])).decode() for byte in range(256)]
        words = "\n".join(f"{token} {rank}" for rank, token in enumerate(tokens)).encode()
        file.write(struct.pack("i", len(words)) + words)
        matrix("transformer.embedding.word_embeddings.weight", vocab, hidden)
        for layer in range(layers):
            block = f"transformer.encoder.layers.{layer}."
            vector(f"{block}input_layernorm.weight", hidden, 1.0)
            matrix(f"{block}self_attention.query_key_value.weight", qkv, hidden)
            vector(f"{block}self_attention.query_key_value.bias", qkv, 0.0)
            matrix(f"{block}self_attention.dense.weight", hidden, hidden)
            vector(f"{block}post_attention_layernorm.weight", hidden, 1.0)
            matrix(f"{block}mlp.dense_h_to_4h.weight", 2 * ffn, hidden)
            matrix(f"{block}mlp.dense_4h_to_h.weight", hidden, ffn)
        vector("transformer.encoder.final_layernorm.weight", hidden, 1.0)
        matrix("transformer.output_layer.weight", vocab, hidden)


def write_tensor(
    file: BinaryIO, name: str, shape: tuple[int, ...], kind: int, data: np.ndarray[Any, Any]
) -> None:
    file.write(struct.pack("i", len(name)) + name.encode())
    file.write(struct.pack(f"{len(shape) + 2}i", len(shape), *shape, kind))
    file.write(bytes(-file.tell() % ALIGNMENT))
    file.write(data.tobytes())


class Rounds:
    """Greedy decoding, or reading a prompt."""

    def __init__(self, path: Path, job: dict[str, Any]) -> None:
        self.pipeline = chatglm.Pipeline(str(path), MAX_LENGTH)
        self.settings = chatglm.GenerationConfig(max_length=MAX_LENGTH, do_sample=False)
        self.tokens, self.prompt = job["tokens"], job["prompt"]

    def next_token(self, ids: list[int], known: int) -> int:
        token: int = self.pipeline.model.generate_next_token(
            ids, None, self.settings, known, len(ids)
        )
        return token

    def run(self) -> float:
        """Returns how many tokens a second."""
        ids = [1] * (self.prompt or SHORT_PROMPT)
        start = time.perf_counter()
        ids.append(self.next_token(ids, 0))
        if self.prompt:
            return float(self.prompt / (time.perf_counter() - start))
        start = time.perf_counter()
        for _ in range(self.tokens):
            ids.append(self.next_token(ids, len(ids) - 1))
        return float(self.tokens / (time.perf_counter() - start))


def main() -> None:
    shape, job = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    folder = Path(shape.pop("folder"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{job['shape']}-{shape['num_layers']}-{job['variant']}.ggml"
    if not path.exists():
        partial = path.with_suffix(".partial")
        write_model(shape, job["variant"], partial)
        partial.replace(path)
    rounds = Rounds(path, job)
    about = {"weights": job["variant"], "activations": "fp32; 8 bits in products"}
    print(json.dumps(about | {"bytes": path.stat().st_size}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"rate": rounds.run()}), flush=True)


if __name__ == "__main__":
    main()
