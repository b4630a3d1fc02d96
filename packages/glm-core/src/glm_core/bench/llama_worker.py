"""llama.cpp's process of `glm bench decode`; runs in its own environment, without this package.

    python llama_worker.py '{"vocab_size": ...}' '{"variant": "Q4_0", "tokens": 16, ...}'

Writes a GGUF file of the shape with random weights, unless it is there already, and serves rounds
as contender.py says. Of a job with `"only": "write"` it prints the file's path and ends: that is
for llama.cpp's server.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"
from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

SHORT_PROMPT = 8
MICROBATCH = 512
"""Tokens of a prompt that are computed at once."""
ERROR = 4  # of llama.cpp's levels of messages
KINDS = {
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
    "Q4_K": gguf.GGMLQuantizationType.Q4_K,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
}
FALLBACK = {
    "Q4_0": gguf.GGMLQuantizationType.F16,
    "Q4_K": gguf.GGMLQuantizationType.Q5_0,
    "Q8_0": gguf.GGMLQuantizationType.F16,
}
"""What llama-quantize takes for columns that the block does not divide."""
SCALE_BYTES = {"Q4_0": 2, "Q4_K": 4, "Q5_0": 2, "Q8_0": 2, "F16": 0}


def write_model(shape: dict[str, Any], variant: str, path: Path) -> None:
    """A model of llama.cpp's chatglm architecture, all matrices of one kind."""
    writer = gguf.GGUFWriter(str(path), "chatglm")
    hidden, ffn, heads = shape["hidden_size"], shape["ffn_hidden_size"], shape["num_heads"]
    head_dim = hidden // heads
    qkv = (heads + 2 * shape["num_kv_heads"]) * head_dim
    writer.add_context_length(2048)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_block_count(shape["num_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(shape["num_kv_heads"])
    writer.add_layer_norm_rms_eps(shape["norm_eps"])
    writer.add_rope_dimension_count(shape["rotary_dim"])
    writer.add_rope_freq_base(shape["rope_theta"])
    writer.add_vocab_size(shape["vocab_size"])
    add_vocabulary(writer, shape.get("vocabulary"))
    numbers = np.random.default_rng(0)
    matrices = {"token_embd": (shape["vocab_size"], hidden)}
    if not shape["tie_embeddings"]:
        matrices["output"] = (shape["vocab_size"], hidden)
    vectors = {"output_norm.weight": hidden}
    for layer in range(shape["num_layers"]):
        block = f"blk.{layer}."
        matrices[f"{block}attn_qkv"] = (qkv, hidden)
        matrices[f"{block}attn_output"] = (hidden, hidden)
        matrices[f"{block}ffn_up"] = (2 * ffn, hidden)
        matrices[f"{block}ffn_down"] = (hidden, ffn)
        vectors |= {f"{block}attn_norm.weight": hidden, f"{block}ffn_norm.weight": hidden}
        if shape["qkv_bias"]:
            vectors[f"{block}attn_qkv.bias"] = qkv
    for name, (rows, columns) in matrices.items():
        kind = fitting(variant, columns)
        data = random_matrix(numbers, rows, columns, kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
    for name, size in vectors.items():
        fill = np.zeros if name.endswith("bias") else np.ones
        writer.add_tensor(name, fill(size, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: gguf.GGUFWriter, path: str | None) -> None:
    """Tokens of a JSON file, as vocabulary.py writes it; without one the model has no texts."""
    if path is None:
        writer.add_tokenizer_model("none")
        return
    pieces = json.loads(Path(path).read_text(encoding="utf-8"))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in pieces])
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types([kind for _, kind in pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def fitting(variant: str, columns: int) -> gguf.GGMLQuantizationType:
    block, _ = gguf.GGML_QUANT_SIZES[KINDS[variant]]
    return KINDS[variant] if columns % block == 0 else FALLBACK[variant]


def random_matrix(
    numbers: np.random.Generator, rows: int, columns: int, kind: gguf.GGMLQuantizationType
) -> np.ndarray[Any, Any]:
    """Random levels; the scales, which stand at the start of each block, are small."""
    if kind == gguf.GGMLQuantizationType.F16:
        return (numbers.standard_normal((rows, columns)) * 0.02).astype(np.float16)
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    data = np.frombuffer(numbers.bytes(rows * columns // block * nbytes), dtype=np.uint8).copy()
    blocks = data.reshape(-1, nbytes)
    scales = SCALE_BYTES[kind.name] // 2
    small = np.float16(1e-3 if kind != gguf.GGMLQuantizationType.Q4_K else 1e-5)
    blocks[:, : 2 * scales] = np.full(scales, small, dtype=np.float16).view(np.uint8)
    return data.reshape(rows, -1)


class Model:
    """A context of llama.cpp."""

    def __init__(self, path: Path, job: dict[str, Any]) -> None:
        llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model_settings = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_settings)
        assert self.model, f"llama.cpp does not load {path}"
        self.batch_size, self.prompt = job["batch"], job["prompt"]
        self.tokens = 0 if self.prompt else job["tokens"]
        self.length = self.prompt or SHORT_PROMPT
        settings = llama_cpp.llama_context_default_params()
        # every text has its own part of the cache, of a multiple of 256 columns
        settings.n_ctx = self.batch_size * -(-(self.length + self.tokens) // 256) * 256
        settings.n_batch = settings.n_ubatch = MICROBATCH
        settings.n_seq_max = self.batch_size
        settings.n_threads = settings.n_threads_batch = job["threads"]
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        assert self.context, "llama.cpp makes no context"
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        self.batch = llama_cpp.llama_batch_init(max(MICROBATCH, self.batch_size), 0, 1)

    def decode(self, columns: list[tuple[int, int, int, bool]]) -> list[int]:
        """Adds columns: token, position, text, and whether logits are wanted; returns the likeliest
        next token for each of these."""
        self.batch.n_tokens = len(columns)
        for row, (token, position, text, wanted) in enumerate(columns):
            self.batch.token[row] = token
            self.batch.pos[row] = position
            self.batch.n_seq_id[row] = 1
            self.batch.seq_id[row][0] = text
            self.batch.logits[row] = wanted
        status = llama_cpp.llama_decode(self.context, self.batch)
        assert status == 0, f"llama_decode returned {status}"
        return [self.likeliest(row) for row, column in enumerate(columns) if column[3]]

    def likeliest(self, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self.context, row)
        return int(np.ctypeslib.as_array(logits, (self.vocab_size,)).argmax())

    def read(self) -> list[int]:
        """Reads the prompts, one after the other; returns the first token of each text."""
        tokens = []
        for text in range(self.batch_size):
            columns = [(1, at, text, at + 1 == self.length) for at in range(self.length)]
            for begin in range(0, self.length, MICROBATCH):
                tokens += self.decode(columns[begin : begin + MICROBATCH])
        return tokens

    def round(self) -> float:
        """Writes a round's tokens, or reads its prompts; returns how many tokens a second."""
        memory = llama_cpp.llama_get_memory(self.context)
        llama_cpp.llama_memory_clear(memory, True)
        start = time.perf_counter()
        tokens = self.read()
        if self.prompt:
            return float(self.batch_size * self.prompt / (time.perf_counter() - start))
        start = time.perf_counter()
        for position in range(self.length, self.length + self.tokens):
            tokens = self.decode([(t, position, text, True) for text, t in enumerate(tokens)])
        return float(self.batch_size * self.tokens / (time.perf_counter() - start))


@llama_cpp.llama_log_callback
def silent(level: int, text: bytes, data: Any) -> None:
    """Errors alone are shown."""
    if level == ERROR and text:
        sys.stderr.write(text.decode(errors="replace"))


def model_file(shape: dict[str, Any], job: dict[str, Any]) -> Path:
    """The model's file, written if it is not there yet."""
    folder = Path(shape["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{job['shape']}-{shape['num_layers']}-{job['variant']}"
    path = folder / f"{name}{'-words' if 'vocabulary' in shape else ''}.gguf"
    if not path.exists():
        partial = path.with_suffix(".partial")
        write_model(shape, job["variant"], partial)
        partial.replace(path)
    return path


def main() -> None:
    shape, job = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    path = model_file(shape, job)
    if job.get("only") == "write":
        print(path)
        return
    model = Model(path, job)
    about = {"weights": job["variant"], "activations": "fp32; 8 bits in products"}
    print(json.dumps(about | {"bytes": path.stat().st_size}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"rate": model.round()}), flush=True)


if __name__ == "__main__":
    main()
