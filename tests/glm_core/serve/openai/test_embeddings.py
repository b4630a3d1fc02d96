"""Texts as vectors over HTTP."""

from __future__ import annotations

from typing import Any

import numpy as np
import openai
import pytest

from glm_core.serve.models import ServedModel


def test_vectors_are_the_same_in_both_encodings(client: openai.OpenAI) -> None:
    texts = ["The with statement", "A list of numbers"]
    packed = client.embeddings.create(model="nano-text", input=texts)  # base64 by default
    plain = client.embeddings.create(model="nano-text", input=texts, encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        np.testing.assert_allclose(one.embedding, other.embedding, rtol=1e-6)
        assert np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-5)
    assert [one.index for one in packed.data] == [0, 1]
    assert packed.data[0].embedding != packed.data[1].embedding


def test_vector_does_not_depend_on_the_texts_beside_it(client: openai.OpenAI) -> None:
    both = client.embeddings.create(
        model="nano-text", input=["a text", "b"], encoding_format="float"
    )
    alone = client.embeddings.create(model="nano-text", input="a text", encoding_format="float")
    np.testing.assert_allclose(both.data[0].embedding, alone.data[0].embedding, atol=1e-6)


def test_tokens_are_taken_as_they_are(client: openai.OpenAI, models: list[ServedModel]) -> None:
    served = models[0]
    ids = served.layout.frame(served.tokenizer.encode("a text"), served.tokenizer)
    given = client.embeddings.create(model="nano-text", input=ids)
    text = client.embeddings.create(model="nano-text", input="a text")
    np.testing.assert_allclose(given.data[0].embedding, text.data[0].embedding, atol=1e-6)
    assert given.usage.prompt_tokens == text.usage.total_tokens == len(ids)


def test_dimensions_are_the_models_own(client: openai.OpenAI) -> None:
    size = len(client.embeddings.create(model="nano-text", input="a").data[0].embedding)
    same = client.embeddings.create(model="nano-text", input="a", dimensions=size)
    assert len(same.data[0].embedding) == size
    with pytest.raises(openai.BadRequestError, match=f"vectors have {size}") as caught:
        client.embeddings.create(model="nano-text", input="a", dimensions=size - 1)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "is empty"),
        ([], "0 texts"),
        (["a", ""], "input\\[1\\]: is empty"),
        ([-1], "greater than or equal to 0"),
        ([10**6], "ids lie between"),
        ("word " * 1100, "context holds 1024"),
    ],
)
def test_input_is_refused_when_it_cannot_be_read(
    client: openai.OpenAI, given: Any, reason: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=reason):
        client.embeddings.create(model="nano-text", input=given)
