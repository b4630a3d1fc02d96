"""What the server says it has."""

from __future__ import annotations

import openai
import pytest


def test_models_are_listed_with_what_they_can_do(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert list(listed) == ["nano-text", "org/tiny"]
    assert listed["nano-text"].abilities == {
        "tools": False,
        "images": False,
        "fill": True,
        "suffix": True,
    }
    assert listed["org/tiny"].abilities["tools"] and not listed["org/tiny"].abilities["suffix"]
    assert listed["org/tiny"].context_length == 2048


def test_model_is_found_when_its_name_has_a_slash(client: openai.OpenAI) -> None:
    assert client.models.retrieve("org/tiny").owned_by == "glm-lab"


def test_model_is_not_found_when_there_is_none_of_the_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'.*nano-text, org/tiny") as caught:
        client.models.retrieve("gpt")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
