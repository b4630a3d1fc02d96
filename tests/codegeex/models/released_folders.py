"""The released folders of the CodeGeeX models at a tiny size: weights, config.json and vocabulary.

Vocabularies are made here of a few lines of code; the files have the names and the form of the
released ones.
"""

import base64
import io
import json

import torch

from . import chatglm2_oracle as chatglm2
from .codegeex_oracle import random_state

CODE = [
    "def add(a, b):\n    return a + b\n",
    "class Stack:\n    def push(self, item):\n        self.items.append(item)\n\n",
    "for index in range(10):\n    print(index)\n",
    "# language: Python\n# write a bubble sort function\n",
]
EXTRA = 143
PIECES = 300
"""GPT-2's vocabulary here, <|endoftext|> included; extra tokens are 300 to 442, rows 443 to 511
padding."""
SENTINELS = ("<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>")


def gpt2_vocabulary():
    """vocab.json and the lines of merges.txt: all bytes, and pairs that code has."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES - 1, initial_alphabet=letters, show_progress=False
    )
    bpe.train_from_iterator(CODE * 3, trainer=trainer)
    model = json.loads(bpe.to_str())["model"]
    assert len(model["vocab"]) == PIECES - 1
    return model["vocab"] | {"<|endoftext|>": PIECES - 1}, list(map(" ".join, model["merges"]))


def write_codegeex_13b(folder, loud_padding=False):
    """codegeex_13b.pt beside the files of the tokenizer; returns the state dict.

    Args:
        loud_padding: whether rows that are no token have the largest logits by far.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = random_state(vocab_size=512, positions=96)
    table = state["language_model"]["embedding"]["word_embeddings"]["weight"]
    if loud_padding:
        table[PIECES + EXTRA :] *= 30.0  # rows 443 to 511
    torch.save({"module": state}, folder / "codegeex_13b.pt")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 8}))
    vocab, merges = gpt2_vocabulary()
    added = {f"<|extratoken_{n}|>": PIECES - 1 + n for n in range(1, EXTRA + 1)}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "added_tokens.json").write_text(json.dumps(added))
    return state


def write_codegeex2(folder, dtype=torch.bfloat16):
    """Two pytorch_model files with an index, tokenizer.model and the name of its code."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    sink = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in CODE * 20 for line in text.split("\n") if line),
        model_writer=sink,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        num_threads=1,
    )
    (folder / "tokenizer.model").write_bytes(sink.getvalue())
    settings = {"tokenizer_class": "ChatGLMTokenizer", "name_or_path": "THUDM/codegeex2-6b"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    weights = chatglm2.random_weights(chatglm2.CODEGEEX2, dtype=dtype)
    _write_shards(folder, weights, chatglm2.CODEGEEX2)
    return weights


def write_codegeex4(folder, dtype=torch.bfloat16, first_sentinel=None):
    """Files with an index, tokenizer.model of ranks, and special tokens in tokenizer_config.json.

    Args:
        first_sentinel: id of <|code_prefix|>; by default the one after the fourteen of GLM-4.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [bytes([value]) for value in range(256)]
    pieces += [b"  ", b"    ", b"def", b" def", b"re", b"return", b"self", b" self", b"\n\n"]
    lines = [f"{base64.b64encode(piece).decode()} {rank}" for rank, piece in enumerate(pieces)]
    (folder / "tokenizer.model").write_text("\n".join(lines) + "\n")
    names = (
        "<|endoftext|> [MASK] [gMASK] [sMASK] <sop> <eop> <|system|> <|user|> <|assistant|> "
        "<|observation|> <|begin_of_image|> <|end_of_image|> <|begin_of_video|> <|end_of_video|>"
    ).split()
    ids = {name: len(pieces) + place for place, name in enumerate(names)}
    first = first_sentinel or len(pieces) + len(names)
    ids |= {name: first + place for place, name in enumerate(SENTINELS)}
    decoder = {str(token): {"content": name, "special": True} for name, token in ids.items()}
    settings = {"tokenizer_class": "ChatGLM4Tokenizer", "added_tokens_decoder": decoder}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    weights = chatglm2.random_weights(chatglm2.CODEGEEX4, seed=1, dtype=dtype)
    _write_shards(folder, weights, chatglm2.CODEGEEX4)
    return weights, ids


def _write_shards(folder, weights, config):
    (folder / "config.json").write_text(json.dumps(config))
    names, places = sorted(weights), {}
    for number in range(2):
        file = f"pytorch_model-{number + 1:05d}-of-00002.bin"
        torch.save({name: weights[name] for name in names[number::2]}, folder / file)
        places |= dict.fromkeys(names[number::2], file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
