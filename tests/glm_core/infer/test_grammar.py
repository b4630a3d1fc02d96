"""Answers held to a grammar: masks against a brute-force oracle, JSON against jsonschema."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import regex
import sentencepiece
import torch

from glm_core.infer.answer import Answer, FinishReason, Vocabulary, accept_rows
from glm_core.infer.grammar import (
    MAX_CHARS,
    Choices,
    Grammar,
    JsonObject,
    JsonSchema,
    Lark,
    Regex,
    compile_grammar,
)
from glm_core.infer.sampling import SamplingConfig
from glm_core.infer.text_generator import TextGenerator
from glm_core.model.transformer import Transformer
from glm_core.tokenizer import ByteBPETokenizer
from glm_core.tokenizer.chatglm2 import ChatGLM3Tokenizer
from glm_core.tokenizer.chinese import ChineseTokenizer
from glm_core.tokenizer.codegeex import CodeGeeXTokenizer
from glm_core.tokenizer.glm4 import GLM4Tokenizer
from glm_core.tokenizer.gpt2 import GPT2Tokenizer
from glm_core.tokenizer.icetk import ChatGLMTokenizer
from glm_core.tokenizer.protocol import Tokenizer

CORPUS = [
    '{"name": "größe", "age": 12, "tags": ["a", "bc"]}',
    "the with statement, don't  stop\n\tyes no 你好 -1.5e3",
] * 10
SCHEMAS: dict[str, dict[str, Any]] = {
    "nested": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "inner": {
                "type": "object",
                "properties": {"deep": {"type": "object", "maxProperties": 0}},
                "required": ["deep"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "inner"],
        "additionalProperties": False,
    },
    "enums": {"type": "array", "items": {"enum": ["größe", "你好", 3, None, True]}, "maxItems": 4},
    "const": {"const": {"k": ["v", 1.5]}},
    "bounds": {
        "type": "array",
        "items": {"type": "integer", "minimum": -3, "maximum": 12},
        "minItems": 2,
        "maxItems": 4,
    },
    "numbers": {
        "type": "object",
        "properties": {
            "n": {"type": "number", "minimum": 0, "maximum": 1},
            "i": {"type": "integer", "exclusiveMinimum": 99, "maximum": 2000},
        },
        "required": ["i"],
        "additionalProperties": False,
    },
    "optional": {
        "type": "object",
        "properties": {key: {"type": "boolean"} for key in ("a", "b", "c")},
        "required": ["b"],
        "additionalProperties": False,
    },
    "strings": {
        "type": "array",
        "items": {"type": "string", "minLength": 1, "maxLength": 6},
        "minItems": 1,
        "maxItems": 3,
    },
    "pattern": {"type": "string", "pattern": "^[a-c]{2,5}-[0-9]+$", "maxLength": 12},
    "any_of": {"anyOf": [{"type": "boolean"}, {"type": "string", "maxLength": 3}]},
    "ref": {
        "$ref": "#/$defs/pair",
        "$defs": {
            "pair": {
                "type": "object",
                "properties": {"left": {"type": "boolean"}, "right": {"type": "null"}},
                "required": ["left", "right"],
                "additionalProperties": False,
            }
        },
    },
    "date": {"type": "string", "format": "date"},
}


def _sentencepiece_model(folder: Path, name: str, **options: Any) -> Path:
    sink = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=sink,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        normalization_rule_name="identity",
        **options,
    )
    path = folder / name
    path.write_bytes(sink.getvalue())
    return path


def _gpt2_files(folder: Path) -> Path:
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    bpe = Library(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=sorted(alphabet), show_progress=False
    )
    bpe.train_from_iterator(CORPUS, trainer)
    bpe.model.save(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocab, "<|endoftext|>": len(vocab)}))
    return folder


def _make(kind: str, folder: Path) -> Tokenizer:
    if kind == "byte_bpe":
        return ByteBPETokenizer.train(CORPUS, vocab_size=320)
    if kind == "gpt2":
        return GPT2Tokenizer.load(_gpt2_files(folder))
    if kind == "codegeex":
        return CodeGeeXTokenizer.load(_gpt2_files(folder))
    if kind == "glm4":
        ranks = {bytes([value]): value for value in range(256)}
        for piece in (b'{"', b'": ', b'", "', b"\xe4\xbd", b" th", b"true", b"12", b"]}"):
            ranks[piece] = len(ranks)
        return GLM4Tokenizer(ranks, {"<|endoftext|>": 264, "<|user|>": 271, "<|observation|>": 273,
                                     "[MASK]": 265, "[gMASK]": 266, "[sMASK]": 267, "<sop>": 268,
                                     "<eop>": 269}, [])  # fmt: skip
    if kind == "chatglm3":
        options = {"model_type": "bpe", "vocab_size": 420, "byte_fallback": True}
        path = _sentencepiece_model(
            folder, "tokenizer.model", remove_extra_whitespaces=False, **options
        )
        return ChatGLM3Tokenizer(path)
    assert kind == "chatglm"
    options = {"model_type": "unigram", "vocab_size": 120, "pad_id": 3}
    path = _sentencepiece_model(
        folder,
        "ice_text.model",
        user_defined_symbols=["<n>", *map(chr, range(0x21, 0x7F))],
        remove_extra_whitespaces=False,
        **options,
    )
    return ChatGLMTokenizer(path, num_image_tokens=0)


KINDS = ("byte_bpe", "gpt2", "codegeex", "glm4", "chatglm3", "chatglm")


@pytest.fixture(scope="module")
def tokenizer_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    made: dict[str, Tokenizer] = {}

    def get(kind: str) -> Tokenizer:
        if kind not in made:
            made[kind] = _make(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return get


def _sample(
    grammar: Grammar, tokenizer: Tokenizer, seed: int, continues: bool = False, **fields: Any
) -> Answer:
    """An answer of random logits."""
    vocabulary = Vocabulary(tokenizer, tokenizer.vocab_size + 3)
    config = SamplingConfig(**{"temperature": 1.0, "seed": seed, "max_new_tokens": 400} | fields)
    sampler = vocabulary.sampler(config, grammar=compile_grammar(grammar, tokenizer))
    answer = Answer(sampler, vocabulary, [], budget=1000, continues=continues)
    generator = torch.Generator().manual_seed(seed)
    while not answer.is_done:
        logits = torch.randn(1, tokenizer.vocab_size + 3, generator=generator) * 2
        (text,) = accept_rows(logits, [answer])
        assert isinstance(text, str), text
    return answer


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_valid_json_of_the_schema_at_any_seed(
    tokenizer_of: Callable[[str], Tokenizer], kind: str, continues: bool
) -> None:
    tokenizer = tokenizer_of(kind)
    for name, schema in SCHEMAS.items():
        checker = jsonschema.Draft202012Validator(
            schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        )
        for seed in range(3):
            answer = _sample(JsonSchema(schema), tokenizer, seed, continues)
            assert answer.finish_reason is FinishReason.stop_token, (name, answer.text)
            checker.validate(json.loads(answer.text))
            assert not set(answer.tokens) & tokenizer.special_ids


@pytest.mark.parametrize("kind", KINDS)
def test_answer_is_one_of_the_choices_to_the_byte(
    tokenizer_of: Callable[[str], Tokenizer], kind: str
) -> None:
    texts = ("yes", 'say "no"\n', "你好", " 🙂")
    found = {_sample(Choices(texts), tokenizer_of(kind), seed).text for seed in range(40)}
    assert found == set(texts)


def test_text_follows_a_lark_grammar(tokenizer_of: Callable[[str], Tokenizer]) -> None:
    sums = Lark('start: term ("+" term){0,3}\nterm: /[1-9]/ | "(" start ")"')
    for seed in range(10):
        text = _sample(sums, tokenizer_of("glm4"), seed, max_new_tokens=200).text
        assert regex.fullmatch(r"(?P<s>(?P<t>[1-9]|\((?&s)\))(\+(?&t)){0,3})", text)


PATTERNS = ("abc", "a(bc|bq)+ ?", "(name|nab)+[0-9]{1,3}", "[^a]{0,5}b", "é(a|ü)?", "(ab)*", "")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_masks_equal_partial_matching_when_the_vocabulary_is_small(pattern: str) -> None:
    tokenizer = ByteBPETokenizer.train(["abc abq name12 éü bcb"] * 9, 300)
    pieces = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)]
    rng = np.random.default_rng(0)
    for _ in range(4):
        state, text = compile_grammar(Regex(pattern), tokenizer).start(), b""
        for _ in range(8):
            mask = state.mask()
            whole = _is_utf8(text) and regex.fullmatch(pattern, text.decode()) is not None
            assert state.may_end == whole
            for token, piece in enumerate(pieces):
                if token in tokenizer.stop_ids:
                    assert mask[token] == whole
                elif not piece:
                    assert not mask[token]
                elif _is_utf8(text + piece):
                    partial = regex.fullmatch(pattern, (text + piece).decode(), partial=True)
                    assert mask[token] == (partial is not None), (text, piece)
            choices = [token for token in np.flatnonzero(mask) if pieces[token]]
            assert state.is_done == (whole and not choices)
            if not choices:
                break
            token = int(rng.choice(choices))
            state.accept(token)
            text += pieces[token]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_dead_text_is_never_offered_the_end(tokenizer_of: Callable[[str], Tokenizer]) -> None:
    state = compile_grammar(Regex("ab"), tokenizer_of("glm4")).start()
    assert not state.may_end and not state.is_done
    assert np.flatnonzero(state.mask()).tolist() == [ord("a")]
    with pytest.raises(ValueError, match="the grammar does not allow the token 98 here"):
        state.accept(98)


def test_special_tokens_stay_out_though_a_lark_grammar_names_them(
    tokenizer_of: Callable[[str], Tokenizer],
) -> None:
    tokenizer = tokenizer_of("glm4")
    mark = tokenizer.token_id("[MASK]")
    state = compile_grammar(Lark(f'start: "a" | <[{mark}]>'), tokenizer).start()
    assert np.flatnonzero(state.mask()).tolist() == [ord("a")]
    with pytest.raises(ValueError, match=f"does not allow the token {mark}"):
        state.accept(mark)


def test_grammar_comes_before_min_new_tokens_when_nothing_but_the_end_is_left(
    tokenizer_of: Callable[[str], Tokenizer],
) -> None:
    answer = _sample(Regex("ab"), tokenizer_of("glm4"), 0, min_new_tokens=9)
    assert answer.text == "ab"
    longer = _sample(Regex("a*"), tokenizer_of("glm4"), 0, min_new_tokens=9)
    assert len(longer.tokens) >= 9 and set(longer.text) == {"a"}


def test_answer_cannot_go_on_when_the_vocabulary_lacks_what_must_come(
    tmp_path: Path,
) -> None:
    path = _sentencepiece_model(tmp_path, "cog-pretrain.model", model_type="bpe", vocab_size=60)
    tokenizer = ChineseTokenizer(path)
    with pytest.raises(ValueError, match="cannot go on: the vocabulary has no token for what"):
        compile_grammar(Choices(("Я",)), tokenizer)
    grammar = compile_grammar(Choices(("nЯ",)), tokenizer)
    vocabulary = Vocabulary(tokenizer, tokenizer.vocab_size)
    answer = Answer(
        vocabulary.sampler(SamplingConfig(), grammar=grammar), vocabulary, [], 9, continues=True
    )
    logits = torch.zeros(1, tokenizer.vocab_size)
    assert accept_rows(logits, [answer]) == ["n"]
    (failed,) = accept_rows(logits, [answer])
    assert isinstance(failed, ValueError) and "cannot go on: the vocabulary" in str(failed)
    with pytest.raises(ValueError, match="chinese_sp tokenizer has no token for '.': JSON needs"):
        compile_grammar(JsonObject(), tokenizer)


DEEP: Any = {"type": "integer"}
for _ in range(3000):
    DEEP = {"items": DEEP}


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (JsonSchema({"type": "objectt"}), "JSON schema cannot be used: Invalid type: objectt"),
        (JsonSchema({"if": {}}), r'JSON schema cannot be used: Unimplemented keys: \["if"\]'),
        (JsonSchema({"if": 1, "x-guidance": {"lenient": True}}), "Unimplemented keys"),
        (JsonSchema({"$ref": "http://host.invalid/x"}), "JSON schema cannot be used"),
        (JsonSchema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}), "cannot be"),
        (JsonSchema(False), "JSON schema is False: it must be an object"),
        (JsonSchema({"const": float("nan")}), "JSON schema is no JSON"),
        (JsonSchema({"const": object()}), "JSON schema is no JSON"),
        (JsonSchema(DEEP), "JSON schema"),
        (Regex("(a"), "regular expression cannot be used: .*invalid regex"),
        (Regex("(" * 50_000 + ")" * 50_000), "regular expression cannot be used"),
        (Regex("a" * MAX_CHARS), "regular expression has 200,0.. characters: .* most 200,000"),
        (Lark("start: unknown"), "Lark grammar cannot be used"),
        (Lark(""), "Lark grammar cannot be used"),
        (Choices(()), r"choices are \(\): give at least one"),
        (Choices(("a", "")), "give at least one, and no empty text"),
    ],
)
def test_compiling_raises_when_a_grammar_is_malformed_or_unsupported(
    tokenizer_of: Callable[[str], Tokenizer], grammar: Grammar, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compile_grammar(grammar, tokenizer_of("glm4"))


def test_true_allows_any_json(tokenizer_of: Callable[[str], Tokenizer]) -> None:
    mask = compile_grammar(JsonSchema(True), tokenizer_of("glm4")).start().mask()
    assert {chr(token) for token in np.flatnonzero(mask[:256])} == set('"-0123456789[ftn{')


def test_compiled_grammars_are_kept_but_not_all(tokenizer_of: Callable[[str], Tokenizer]) -> None:
    tokenizer = tokenizer_of("glm4")
    first = compile_grammar(Regex("x0"), tokenizer)
    assert compile_grammar(Regex("x0"), tokenizer) is first
    for index in range(1, 70):
        compile_grammar(Regex(f"x{index}"), tokenizer)
    assert compile_grammar(Regex("x0"), tokenizer) is not first


def test_states_are_apart_when_threads_share_a_grammar(
    tokenizer_of: Callable[[str], Tokenizer],
) -> None:
    tokenizer = tokenizer_of("chatglm3")
    found: dict[int, str] = {}

    def work(seed: int) -> None:
        found[seed] = _sample(JsonSchema(SCHEMAS["numbers"]), tokenizer, seed).text

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = {s: _sample(JsonSchema(SCHEMAS["numbers"]), tokenizer, s).text for s in range(6)}
    assert found == alone


def test_every_text_and_blank_is_json_when_the_model_is_random(
    build_model: Callable[..., Transformer], tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(), tokenizer)
    schema = SCHEMAS["bounds"]
    config = SamplingConfig(temperature=1.0, max_new_tokens=60, seed=5)
    for completion in generator.generate(["A", "The with"], config, JsonSchema(schema)):
        jsonschema.validate(json.loads(completion.text), schema)
    greedy = SamplingConfig(max_new_tokens=60)
    streamed = "".join(generator.stream("The", greedy, JsonSchema(schema)))
    assert streamed == generator.generate("The", greedy, JsonSchema(schema))[0].text
    jsonschema.validate(json.loads(streamed), schema)
    filled = generator.fill("A [MASK] and a [MASK].", config, Choices(("yes", "no")))
    assert [blank.text in ("yes", "no") for blank in filled.blanks] == [True, True]


def test_generator_raises_when_a_grammar_meets_beams(
    build_model: Callable[..., Transformer], tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(), tokenizer)
    with pytest.raises(ValueError, match="num_beams is 2: it must be 1 with a grammar"):
        generator.generate("A", SamplingConfig(num_beams=2), Regex("a"))
