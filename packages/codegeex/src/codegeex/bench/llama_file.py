"""Writes a GGUF file of what llama_export.py wrote; runs in llama.cpp's own environment.

python llama_file.py FOLDER Q4_0 model.gguf
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

ARCHITECTURE, PRE_TOKENIZER = "llama", "starcoder"
"""Its pre-tokenizer is ours: digits one by one, then GPT-2's pieces."""
_NORMAL, _CONTROL = 1, 3
"""Kinds of tokens."""


def write(folder: Path, kind: str, path: Path) -> None:
    """Writes the file, all matrices of one kind."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(str(path), ARCHITECTURE)
    add_settings(writer, settings)
    add_vocabulary(writer, settings, folder)
    with np.load(folder / "tensors.npz") as arrays:
        for name in arrays.files:
            add_tensor(writer, name, arrays[name], kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_settings(writer: Any, settings: dict[str, Any]) -> None:
    """The model's shape."""
    writer.add_context_length(settings["context"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_feed_forward_length(settings["ffn_hidden_size"])
    writer.add_block_count(settings["num_layers"])
    writer.add_head_count(settings["num_heads"])
    writer.add_head_count_kv(settings["num_kv_heads"])
    writer.add_key_length(settings["head_dim"])
    writer.add_value_length(settings["head_dim"])
    writer.add_layer_norm_rms_eps(settings["norm_eps"])
    writer.add_rope_dimension_count(settings["rotary_dim"])
    writer.add_rope_freq_base(settings["rope_theta"])


def add_vocabulary(writer: Any, settings: dict[str, Any], folder: Path) -> None:
    """Pieces, merges and special tokens."""
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    ids = model["vocab"] | config["special_tokens"]
    tokens = sorted(ids, key=ids.__getitem__)
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if t in config["special_tokens"] else _NORMAL for t in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(settings["eos"])
    writer.add_eos_token_id(settings["eos"])
    writer.add_add_bos_token(False)
    for part in ("pre", "suf", "mid"):
        writer.add_uint32(f"tokenizer.ggml.fim_{part}_token_id", settings[f"fim_{part}"])


def add_tensor(writer: Any, name: str, array: np.ndarray[Any, Any], kind: str) -> None:
    """A matrix of a kind, or a vector as it is."""
    if array.ndim == 1:
        writer.add_tensor(name, array)
        return
    quantized = gguf.GGMLQuantizationType[kind]
    writer.add_tensor(name, gguf.quants.quantize(array, quantized), raw_dtype=quantized)


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
