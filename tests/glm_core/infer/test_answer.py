"""One answer, decoded by a tokenizer that puts a space before every text and has no [CLS]."""

from __future__ import annotations

import io

import pytest
import sentencepiece

from glm_core.infer.answer import Answer, FinishReason, Vocabulary
from glm_core.infer.sampling import Sampler, SamplingConfig
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
    def make(continues, stop=()):
        vocabulary = Vocabulary(tokenizer, tokenizer.vocab_size + 2)
        config = SamplingConfig(max_new_tokens=99, stop=stop)
        sampler = Sampler(config, vocabulary.stop_ids, vocabulary.excluded_ids)
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
    shown = [one.append(token, 0.0) for token in tokenizer.encode("hello there")]
    assert "".join(shown) == one.text == text


@pytest.mark.parametrize("continues", [False, True])
def test_tokens_end_where_the_text_ends_when_a_stop_string_comes(answer, tokenizer, continues):
    kept = tokenizer.encode("hello there, hello")
    one = answer(continues, stop=(" stop",))
    for token in [*kept, *tokenizer.encode("stop")]:
        if not one.is_done:
            one.append(token, 0.0)
    assert one.finish_reason is FinishReason.stop_string
    assert one.text.strip() == "hello there, hello"
    assert one.tokens == kept
