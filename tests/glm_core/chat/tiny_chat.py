"""Tiny tokenizers of every chat model, trained here, and random models that go with them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import sentencepiece

from glm_core.infer import TextGenerator
from glm_core.testing.models import tiny_model
from glm_core.tokenizer import Tokenizer, load_tokenizer

TEXT = [
    "Hello, what is the weather in Beijing today? It is sunny, 22 degrees.",
    "你好，我是人工智能助手。今天北京的天气怎么样？训练时间是哪一年？",
    "[Round 1] 问：你好 答：你好！很高兴见到你，欢迎问我任何问题。",
    'tool_call(city="Beijing", unit="celsius") {"name": "get_weather", "parameters": {}}',
    "```python\nprint(1 + 2)\n``` <|user|> <|assistant|> [gMASK] sop [MASK]",
]
KINDS = ("chatglm", "chatglm2", "chatglm3", "glm4")
PRESETS = {
    "chatglm": "chatglm-6b",
    "chatglm2": "chatglm2-6b",
    "chatglm3": "chatglm3-6b",
    "glm4": "glm-4-9b",
}


def write_tokenizer(kind: str, folder: Path) -> Tokenizer:
    """Trains a tokenizer and writes it as the model's own files."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "glm4":
        ranks = [bytes([value]) for value in range(256)]
        ranks += [piece.encode() for piece in ("你好", " the", "weather", "\n\n", "天气")]
        lines = [f"{base64.b64encode(p).decode()} {rank}\n" for rank, p in enumerate(ranks)]
        (folder / "tokenizer.model").write_text("".join(lines))
    elif kind == "chatglm":
        settings = {"model_type": "unigram", "user_defined_symbols": ["<n>"]}
        (folder / "ice_text.model").write_bytes(_sentencepiece(180, **settings))
    else:
        settings = {"model_type": "bpe", "byte_fallback": True}
        (folder / "tokenizer.model").write_bytes(_sentencepiece(440, **settings))
    return load_tokenizer(folder, kind)


def tiny_chat(kind: str, folder: Path, seed: int = 0, **changes: Any) -> TextGenerator:
    """A random model that chats in the format `kind`, and its tokenizer."""
    tokenizer = write_tokenizer(kind, folder)
    fields = {"vocab_size": tokenizer.vocab_size + 5, "max_position_embeddings": 512} | changes
    return TextGenerator(tiny_model(PRESETS[kind], seed, **fields), tokenizer)


def _sentencepiece(vocab_size: int, **settings: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 3),
        model_writer=model,
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
        num_threads=1,
        **settings,
    )
    return model.getvalue()
