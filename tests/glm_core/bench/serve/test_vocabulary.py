"""The made-up vocabulary: as large as asked for, and every word gives text."""

from __future__ import annotations

import json
from pathlib import Path

from glm_core.bench.serve.vocabulary import NUM_TRAINED, word_tokenizer, write_pieces


def test_vocabulary_has_as_many_ids_as_the_model(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(1200, tmp_path)
    assert tokenizer.vocab_size == 1200
    words = [tokenizer.decode([token]) for token in range(NUM_TRAINED, 1200)]
    assert len(set(words)) == 900 and all(word.isalpha() for word in words)
    assert tokenizer.decode([NUM_TRAINED, NUM_TRAINED + 1]) == "aa ab"


def test_pieces_are_numbered_as_in_a_gguf_file(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(400, tmp_path)
    write_pieces(tokenizer, tmp_path / "pieces.json")
    pieces = json.loads((tmp_path / "pieces.json").read_text())
    assert pieces[:4] == [["<unk>", 2], ["<s>", 3], ["</s>", 3], ["<0x00>", 6]]
    assert pieces[258] == ["<0xFF>", 6] and pieces[NUM_TRAINED] == ["▁aa", 1]
    assert len({text for text, _ in pieces}) == len(pieces) == 400
