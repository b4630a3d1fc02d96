"""A vocabulary of made-up words for a model with random weights, the same one on both sides.

Every token but a few is a word, so that every token of an answer gives text and its event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from itertools import count, islice, product
from pathlib import Path
from string import ascii_lowercase

from glm_core.tokenizer.llama import LlamaTokenizer
from glm_core.tokenizer.sentencepiece import SPACE, PieceType, SentencePieces

NUM_TRAINED = 300
"""Ids of <unk>, <s>, </s>, bytes and letters; all others are words."""
_BYTES = range(3, 259)
_NORMAL, _UNKNOWN = 1, 2
"""Kinds of pieces in a GGUF file; the others are numbered as PieceType is."""


def word_tokenizer(vocab_size: int, folder: Path) -> LlamaTokenizer:
    """Makes a tokenizer of so many ids.

    Args:
        vocab_size: `NUM_TRAINED` at least.
        folder: for its model file.
    """
    import sentencepiece

    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        # in other letters than the words, none of which it may learn
        sentence_iterator=(word.upper() for word in islice(_words(), 2000)),
        model_writer=model,
        model_type="bpe",
        byte_fallback=True,
        vocab_size=NUM_TRAINED,
        minloglevel=2,
    )
    path = folder / "tokenizer.model"
    path.write_bytes(model.getvalue())
    words = [
        (f"{SPACE}{word}", PieceType.user_defined)
        for word in islice(_words(), vocab_size - NUM_TRAINED)
    ]
    return LlamaTokenizer(SentencePieces(path, appended=words), {}, [])


def write_pieces(tokenizer: LlamaTokenizer, path: Path) -> None:
    """Writes text and kind of every token, for llama_worker.py."""
    path.write_text(json.dumps([_piece(tokenizer, token) for token in range(tokenizer.vocab_size)]))


def _piece(tokenizer: LlamaTokenizer, token: int) -> tuple[str, int]:
    if token in tokenizer.special_ids:
        kind = _UNKNOWN if tokenizer.token_name(token) == "<unk>" else PieceType.control
        return tokenizer.token_name(token), kind
    content = tokenizer.piece(token)
    if token in _BYTES:
        return f"<0x{content[0]:02X}>", PieceType.byte
    return content.decode().replace(" ", SPACE), _NORMAL


def _words() -> Iterator[str]:
    """Words of two letters, then of three, and so on."""
    for length in count(2):
        for letters in product(ascii_lowercase, repeat=length):
            yield "".join(letters)
