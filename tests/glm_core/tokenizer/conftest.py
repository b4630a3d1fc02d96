"""Small vocabularies trained in the tests, and the oracles that read them."""

import io
import json
import os
import random
from pathlib import Path

import pytest
import regex

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CORPUS = [
    "The quick brown fox jumps over the lazy dog, don't they? I've 12 345 of them.\n",
    "def main():\n    for index in range(10):\n        print(index, 'hello world')\n\n",
    "你好，世界！很高兴见到你。🙂🙃 naïve café, Привет мир\t\t= 3.14\r\n",
] * 20
TEXTS = [
    "",
    " ",
    "  ",
    "the fox",
    " The quick brown fox isn't here; they'll say we'd 1234567 times.",
    "def f(x):\n\treturn   x  # 你好\n\n\n    pass \n",
    "naïve e\u0301 日本語 🙂🙃👩\u200d👩\u200d👧 \u00a0\u3000x",
    "\x00\x7f\x1c\u2028\u0085",
    "a" * 300 + "!" * 50 + " " * 40,
    "'S 'RE I'LL ''s",
    "<|endoftext|> <|user|>[MASK][gMASK]<sop><|startofpiece|>",
]


@pytest.fixture(scope="session")
def texts():
    """Hand-written cases and 150 random strings of letters, marks, spaces and rare characters."""
    chance = random.Random(0)
    parts = [
        "the",
        "in",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "7",
        "42",
        "é",
        "你",
        "🙂",
        "'ll",
        "?!",
        "\u200d",
        "İ",
    ]
    drawn = ["".join(chance.choices(parts, k=chance.randrange(1, 30))) for _ in range(100)]
    rare = ["".join(map(chr, chance.choices(range(0x20, 0xD7FF), k=12))) for _ in range(50)]
    return TEXTS + drawn + rare


@pytest.fixture
def known():
    """Folder of one released tokenizer under GLM_TOKENIZERS; the test is skipped without it."""

    def find(name: str) -> Path:
        root = os.environ.get("GLM_TOKENIZERS")
        if not root or not (Path(root) / name).is_dir():
            pytest.skip(f"GLM_TOKENIZERS names no folder that holds {name}")
        return Path(root) / name

    return find


@pytest.fixture
def released(known):
    """Loads a released tokenizer from under GLM_TOKENIZERS, its kind told by its files."""
    from glm_core.tokenizer import load_tokenizer

    def load(name: str, kind: str):
        tokenizer = load_tokenizer(known(name))
        assert tokenizer.kind == kind
        return tokenizer

    return load


@pytest.fixture(scope="session")
def train_sentencepiece():
    """Trains a SentencePiece model on the corpus; gives the file."""

    def train(model_type: str, **options) -> bytes:
        import sentencepiece

        sink = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for text in CORPUS for line in text.split("\n") if line),
            model_writer=sink,
            model_type=model_type,
            hard_vocab_limit=False,
            minloglevel=2,
            num_threads=1,
            **options,
        )
        return sink.getvalue()

    return train


@pytest.fixture(scope="session")
def icetk_model(train_sentencepiece):
    """Unigram without byte pieces, laid out as in ice_text.model: </s> 2, <pad> 3, <n> 4."""
    return train_sentencepiece(
        "unigram",
        vocab_size=200,
        pad_id=3,
        user_defined_symbols=["<n>"],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )


@pytest.fixture(scope="session")
def bpe_model(train_sentencepiece):
    """BPE with byte pieces, as in the tokenizer.model of ChatGLM2 and LLaMA; a line break is 13."""
    return train_sentencepiece(
        "bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )


@pytest.fixture(scope="session")
def chinese_model(train_sentencepiece):
    """Unigram that knows only its own characters, as cog-pretrain.model."""
    return train_sentencepiece("unigram", vocab_size=200)


@pytest.fixture(scope="session")
def train_bpe():
    """Trains a byte-level BPE on text that `pattern` cuts; the library's own tokenizer."""

    def train(pattern: str, size: int):
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False
        )
        bpe.train_from_iterator(CORPUS, trainer=trainer)
        return bpe

    return train


@pytest.fixture(scope="session")
def gpt2_files(train_bpe, tmp_path_factory):
    """vocab.json and merges.txt as GPT-2 has them: <|endoftext|> is the last id, 400."""
    model = json.loads(train_bpe(GPT2_PATTERN, 400).to_str())["model"]
    folder = tmp_path_factory.mktemp("gpt2")
    vocab = {**model["vocab"], "<|endoftext|>": len(model["vocab"])}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *map(" ".join, model["merges"])]) + "\n"
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def gpt2_oracle(gpt2_files):
    """GPT-2's encoder written down from its description: cut, map bytes, merge the best pair."""
    vocab = json.loads((gpt2_files / "vocab.json").read_text(encoding="utf-8"))
    lines = (gpt2_files / "merges.txt").read_text(encoding="utf-8").split("\n")[1:-1]
    rank = {tuple(line.split(" ")): place for place, line in enumerate(lines)}
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    char = {byte: chr(byte) for byte in shown}
    char |= {b: chr(256 + n) for n, b in enumerate(b for b in range(256) if b not in shown)}

    def merge(symbols: list[str]) -> list[str]:
        while len(symbols) > 1:
            pairs = list(zip(symbols, symbols[1:], strict=False))
            best = min(pairs, key=lambda pair: rank.get(pair, len(rank)))
            if best not in rank:
                break
            merged, place = [], 0
            while place < len(symbols):
                pair = tuple(symbols[place : place + 2])
                merged.append("".join(pair) if pair == best else symbols[place])
                place += 2 if pair == best else 1
            symbols = merged
        return symbols

    def encode(text: str) -> list[int]:
        words = regex.findall(GPT2_PATTERN, text)
        return [vocab[s] for word in words for s in merge([char[b] for b in word.encode()])]

    return encode
