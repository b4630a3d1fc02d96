"""Questions, blank filling, last words, and the counting and compressing baselines."""

from __future__ import annotations

import lzma
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from glm_core.attention import PrefixLM
from glm_core.data.batch import IGNORE
from glm_core.evaluate.blanks import Accuracy, fill_accuracy, question_prompt
from glm_core.evaluate.compressors import lzma_bits_per_byte, zlib_bits_per_byte
from glm_core.evaluate.counting import WordCounts
from glm_core.evaluate.excerpts import (
    SHORT_SPAN,
    WORD,
    Question,
    gap_questions,
    last_word_questions,
)
from glm_core.evaluate.lastword import Mode, last_word_accuracy, last_word_sample, modes_of
from glm_core.infer import SamplingConfig, TextGenerator
from glm_core.model import GenerationLayout, Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]
TEXT = "The list holds a value, and [MASK] is text. It's a file-name here and there it ends (so)."


def _documents(tokenizer: ByteBPETokenizer, *texts: str) -> list[np.ndarray]:
    return [np.array(tokenizer.encode(text)) for text in texts]


@pytest.mark.parametrize("pattern", [WORD, SHORT_SPAN])
def test_gap_questions_give_back_the_text_when_the_answer_is_put_in(
    tokenizer: ByteBPETokenizer, pattern: object
) -> None:
    documents = _documents(tokenizer, TEXT)
    questions = gap_questions(documents, tokenizer, pattern, 128, 50, seed=0)  # type: ignore[arg-type]
    assert questions
    for question in questions:
        assert f"{question.left} {question.answer}{question.right}" == TEXT
        assert question.at_document_end
        words = len(question.answer.split())
        assert words == 1 if pattern is WORD else words in (2, 3)
        assert "It" not in question.answer.split() and "file" not in question.answer.split()


def test_gap_questions_fit_the_window_and_depend_on_the_seed_alone(
    tokenizer: ByteBPETokenizer,
) -> None:
    documents = _documents(tokenizer, *[TEXT * 9] * 4)
    first, again, other = (
        gap_questions(documents, tokenizer, WORD, 64, 12, seed) for seed in (1, 1, 2)
    )
    assert first == again != other and len(first) == 12
    for question in first:
        text = f"{question.left} {question.answer}{question.right}"
        assert len(tokenizer.encode(text)) <= 64 - 20


def test_last_word_questions_ask_for_the_word_before_the_full_stop(
    tokenizer: ByteBPETokenizer,
) -> None:
    long = "one two three four five " * 4 + "the very end.)"
    documents = _documents(tokenizer, f"{long}\n\ntoo short.\n\n" + "1 " * 30)
    (question,) = last_word_questions(documents, tokenizer, 128, 10, seed=0)
    assert question.answer == "end" and question.left.endswith(" the very")


def test_fill_accuracy_counts_exact_answers_only(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    generator = TextGenerator(build_model(), tokenizer)
    question = Question("The list", "x", " a [MASK] value.", True)
    prompt = question_prompt(generator, question)
    assert prompt.context_ids.count(tokenizer.mask_id) == 1
    answer = generator.fill_prompts([prompt], SamplingConfig(max_new_tokens=16))[0].blanks[0].text
    right = Question(question.left, answer.strip(), question.right, True)
    assert fill_accuracy(generator, [question, right, right]) == Accuracy(2, 3)


def test_last_word_sample_shows_the_text_as_the_mode_says(tokenizer: ByteBPETokenizer) -> None:
    question = Question("The list holds a", "value", "", True)
    left, word = len(tokenizer.encode(question.left)), tokenizer.encode(" value")
    prefix = {
        Mode.unidirectional: 2,
        Mode.bidirectional: left + 2,
        Mode.bidirectional_gmask: left + 2,
    }
    for mode, prefix_len in prefix.items():
        sample = last_word_sample(tokenizer, question, mode, has_blanks=True)
        assert sample.labels[sample.labels != IGNORE].tolist() == word
        assert sample.segments[0][1] == prefix_len


def test_last_word_accuracy_equals_the_argmax_of_each_sample(
    build_model: Build, tokenizer: ByteBPETokenizer
) -> None:
    model = build_model()
    questions = [Question("The list " * n, "a", "", True) for n in range(1, 9)]
    samples = [last_word_sample(tokenizer, q, Mode.bidirectional, True) for q in questions]
    best = []
    for sample in samples:
        with torch.no_grad():
            hidden = model(
                torch.tensor(sample.input_ids)[None],
                torch.tensor(sample.position_ids)[None],
                PrefixLM((sample.segments[0][1],)),
            )
        column = int(np.flatnonzero(sample.labels != IGNORE)[0])
        best.append(int(model.logits(hidden)[0, column].argmax()))
    # Ask for what the model says in half of the cases.
    names = [tokenizer.decode([token]).strip() for token in best]
    asked = [
        Question(q.left, name if i % 2 else "zzz", "", True)
        for i, (q, name) in enumerate(zip(questions, names, strict=True))
    ]
    expected = sum(
        i % 2 == 1 and tokenizer.encode(f" {name}") == [token]
        for i, (name, token) in enumerate(zip(names, best, strict=True))
    )
    found = last_word_accuracy(model, tokenizer, asked, Mode.bidirectional)
    assert found == Accuracy(expected, 8)


def test_causal_model_has_the_unidirectional_mode_only(build_model: Build) -> None:
    assert modes_of(build_model()) == list(Mode)
    causal = build_model(generation_layout=GenerationLayout.causal)
    assert modes_of(causal) == [Mode.unidirectional]


def test_word_counts_answer_from_both_neighbours_and_fall_back() -> None:
    train = ["the cat sat, the cat ran. the dog ran. a big cat sat down", "the the the"]
    both = Question("then the", "dog", " ran on", False)
    before = Question("so a big", "cat", " flew", False)
    unknown = Question("qqq", "the", " zzz", False)
    counts = WordCounts([both, before, unknown], train)
    assert counts.context_accuracy([both]) == Accuracy(0, 1)  # cat and dog ran: the first seen
    assert counts.context_accuracy([before, unknown]) == Accuracy(2, 2)
    assert counts.most_frequent == "the"
    assert counts.most_frequent_accuracy([both, before, unknown]) == Accuracy(1, 3)
    assert counts.num_words == 8


def test_compressors_profit_from_what_they_know() -> None:
    rng = random.Random(0)
    text = bytes(rng.choices(range(256), k=4000))
    known = bytes(rng.choices(range(256), k=90000)) + text
    assert lzma_bits_per_byte(b"", text) > 7.9 and zlib_bits_per_byte(b"", text) > 7.9
    assert lzma_bits_per_byte(known, text) < 0.1
    assert zlib_bits_per_byte(known, text) < 0.3
    prose = TEXT.encode() * 3
    alone = len(lzma.compress(prose, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1}]))
    assert lzma_bits_per_byte(b"", prose) == pytest.approx(8 * alone / len(prose), rel=0.02)
