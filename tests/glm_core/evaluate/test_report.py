"""The whole report on a tiny corpus, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from glm_core.data.prepare import PreparedData
from glm_core.evaluate import EvaluationConfig, bits_per_byte, evaluate
from glm_core.evaluate.report import heldout_documents
from glm_core.infer import TextGenerator
from glm_core.model import Transformer
from glm_core.tokenizer import ByteBPETokenizer

Build = Callable[..., Transformer]


def test_report_has_every_measure_and_repeats_itself(
    build_model: Build, tokenizer: ByteBPETokenizer, data: PreparedData
) -> None:
    generator = TextGenerator(build_model(), tokenizer)
    config = EvaluationConfig(num_questions=8, baselines=True, limit=3, ngram_order=3)
    report = evaluate(generator, data, config)
    documents = heldout_documents(data, 3, config.seed)
    expected = bits_per_byte(generator.model, tokenizer, documents, 64).bits_per_byte
    assert report["bits_per_byte"] == round(expected, 4)
    assert report["documents"] == 3
    assert report["bytes"] == sum(len(tokenizer.decode_bytes(d.tolist())) for d in documents)
    assert set(report["last_word"]) == {"unidirectional", "bidirectional", "bidirectional_gmask"}
    assert report["window"] == 64  # all that this model holds
    assert report["blanks"]["one_word"]["count"] == 8
    costs = report["baselines"]["bits_per_byte"]
    # The corpus is a little grammar: counting knows it well, an untrained model does not.
    assert costs["kneser_ney_3gram"] < costs["lzma"] < costs["zlib"] < report["bits_per_byte"]
    assert report["baselines"]["one_word"]["neighbours"]["count"] == 8
    again = evaluate(generator, data, config)
    assert {**report, "seconds": 0} == {**again, "seconds": 0}


def test_heldout_documents_are_all_and_end_before_eos(
    tokenizer: ByteBPETokenizer, data: PreparedData
) -> None:
    documents = heldout_documents(data, 0, seed=0)
    assert len(documents) == len(data.heldout) > 3
    assert all(tokenizer.eos_id not in document for document in documents)


@pytest.mark.parametrize(
    ("name", "value"), [("limit", -1), ("num_questions", 0), ("ngram_order", 1), ("window", 10)]
)
def test_config_raises_when_a_value_is_out_of_range(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}: it must be at least"):
        EvaluationConfig(**{name: value})


def test_evaluate_raises_when_the_corpus_has_another_tokenizer(
    build_model: Build, data: PreparedData
) -> None:
    other = ByteBPETokenizer.train(["another text altogether"] * 3, 280)
    generator = TextGenerator(build_model(), other)
    with pytest.raises(ValueError, match="tokenised with another tokenizer than the model's"):
        evaluate(generator, data, EvaluationConfig())
