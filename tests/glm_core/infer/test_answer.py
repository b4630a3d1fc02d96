"""One answer, decoded by a tokenizer that puts a space before every text and has no [CLS]."""

from __future__ import annotations

import io

import pytest
import sentencepiece

from glm_core.infer.answer import Answer, FinishReason, Vocabulary
from glm_core.infer.logprobs import TokenLogprob
from glm_core.infer.sampling import SamplingConfig
from glm_core.tokenizer.chatglm2 import ChatGLM3Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    sink = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello there, hello again", "stop here"] * 20),
        model_writer=sink,
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path.write_bytes(sink.getvalue())
    return ChatGLM3Tokenizer(path)


@pytest.fixture
def answer(tokenizer):
    def make(continues, **fields):
        vocabulary = Vocabulary(tokenizer, tokenizer.vocab_size + 2)
        config = SamplingConfig(**{"max_new_tokens": 99} | fields)
        sampler = vocabulary.sampler(config)
        return Answer(sampler, vocabulary, [], budget=99, continues=continues)

    return make


def test_marks_and_padding_are_excluded_when_the_tokenizer_names_them(tokenizer):
    vocabulary = Vocabulary(tokenizer, tokenizer.vocab_size + 2)
    user, observation = tokenizer.token_id("<|user|>"), tokenizer.token_id("<|observation|>")
    assert vocabulary.stop_ids == [2, user, observation]
    first = tokenizer.mask_id
    marks = [0, 1, *range(first, first + 6), first + 7]
    size = tokenizer.vocab_size
    assert vocabulary.excluded_ids == [*marks, size, size + 1]


@pytest.mark.parametrize(("continues", "text"), [(False, "hello there"), (True, " hello there")])
def test_first_space_is_the_texts_when_the_answer_continues_it(answer, tokenizer, continues, text):
    one = answer(continues)
    shown = [one.append(TokenLogprob(token, -1.0)) for token in tokenizer.encode("hello there")]
    assert "".join(shown) == one.text == text


@pytest.mark.parametrize("continues", [False, True])
def test_tokens_end_where_the_text_ends_when_a_stop_string_comes(answer, tokenizer, continues):
    kept = tokenizer.encode("hello there, hello")
    one = answer(continues, stop=(" stop",))
    for token in [*kept, *tokenizer.encode("stop")]:
        if not one.is_done:
            one.append(TokenLogprob(token, -1.0))
    assert one.finish_reason is FinishReason.stop_string
    assert one.text.strip() == "hello there, hello"
    assert one.tokens == kept


@pytest.fixture
def push(tokenizer):
    """Appends the tokens of a text; returns the tokens that became certain, step by step."""

    def run(one, text):
        taken = []
        for token in tokenizer.encode(text):
            if not one.is_done:
                one.append(TokenLogprob(token, -1.0))
                taken.append([entry.token for entry in one.take_logprobs()])
        return taken

    return run


def test_logprobs_are_those_of_the_tokens_kept_when_a_stop_string_comes(answer, push):
    one = answer(False, stop=["there"])
    push(one, "hello hello there")
    assert one.finish_reason is FinishReason.stop_string
    assert [entry.token for entry in one.logprobs] == one.tokens
    assert one.logprob < -len(one.tokens)  # the sum has those of the stop string too


def test_tokens_become_certain_only_when_no_stop_string_can_drop_them(answer, push, tokenizer):
    one = answer(False, stop=["hello again", "no"])
    taken = push(one, "hello there, hello there")
    ids = tokenizer.encode("hello there, hello there")
    assert taken[0] == []  # may yet become "hello again"
    flat = [token for step in taken for token in step]
    assert flat == ids[: len(flat)]
    one.append(TokenLogprob(tokenizer.stop_ids[0], -1.0))
    assert flat + [entry.token for entry in one.take_logprobs()] == ids


def test_tokens_are_certain_at_once_when_there_is_no_stop_string(answer, push, tokenizer):
    ids = tokenizer.encode("hello there")
    assert push(answer(True), "hello there") == [[token] for token in ids]


def test_tokens_of_damaged_characters_are_dropped_exactly_when_a_stop_string_comes(
    answer, tokenizer
):
    # Each damaged byte is shown as a character of three bytes.
    damaged = tokenizer.encode("\xe9")[-2:-1]
    one = answer(True, stop=["there"])
    kept = [*damaged, *tokenizer.encode("hello")]
    for token in [*kept, *tokenizer.encode("there")]:
        if not one.is_done:
            one.append(TokenLogprob(token, 0.0))
    assert one.text.startswith("\ufffd") and one.finish_reason is FinishReason.stop_string
    # The space before "there" stands in the token of the stop string, or alone.
    assert tokenizer.decode_bytes(one.tokens).strip() == b"\xc3 hello"


def test_answer_ends_without_the_token_when_it_is_one_of_the_requests_own(answer, tokenizer):
    comma, hello = (tokenizer.encode(text)[-1] for text in (",", "hello"))
    one = answer(False, stop_token_ids=[comma], stop=["zz"])
    one.append(TokenLogprob(hello, -1.0))
    one.append(TokenLogprob(comma, -2.0))
    assert (one.tokens, one.text, one.stop_id) == ([hello], "hello", comma)
    assert one.finish_reason is FinishReason.stop_token
    assert one.mean_logprob == -1.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop_token_ids": [10**6]}, r"stop_token_ids names the id 1000000: .* 0 and \d+"),
        ({"logit_bias": {10**6: 1.0}}, "logit_bias names the id 1000000"),
    ],
)
def test_sampler_raises_when_an_id_is_outside_the_vocabulary(answer, fields, message):
    with pytest.raises(ValueError, match=message):
        answer(False, **fields)
