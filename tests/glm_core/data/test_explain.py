import pytest

from glm_core.data.explain import explain_prompt, explain_training

TEXT = "The block wraps a file. The list returns a value."


@pytest.mark.parametrize("mode", ["mask", "sentence", "gmask", "causal"])
def test_explanation_is_complete_when_a_text_is_given(tokenizer, mode):
    explanation = explain_training(tokenizer, TEXT, mode, seed=1)
    data = explanation.as_json()
    size = len(data["tokens"])
    assert [len(row) for row in data["mask"]] == [size] * size
    assert data["tokens"][0]["token"] == "[CLS]"
    labelled = [token["label"] is not None for token in data["tokens"]]
    assert labelled.index(True) == (0 if mode == "causal" else data["prefix_len"])
    assert f"mode {mode}" in explanation.as_text()


def test_mask_is_prefix_then_causal_when_drawn(tokenizer):
    data = explain_training(tokenizer, TEXT, "mask", seed=1).as_json()
    size, prefix = len(data["tokens"]), data["prefix_len"]
    expected = [
        "".join("1" if key <= query or key < prefix else "0" for key in range(size))
        for query in range(size)
    ]
    assert data["mask"] == expected


def test_same_seed_gives_the_same_when_asked_twice(tokenizer):
    texts = [explain_training(tokenizer, TEXT, "mask", seed).as_text() for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_prompt_shows_a_sop_per_blank_when_the_user_marks_them(tokenizer):
    data = explain_prompt(tokenizer, "The [MASK] wraps a [sMASK]").as_json()
    tokens = [token["token"] for token in data["tokens"]]
    first, second = tokens.index("[MASK]"), tokens.index("[sMASK]")
    sops = [token for token in data["tokens"] if token["token"] == "<|startofpiece|>"]
    assert [(sop["position"], sop["block_position"]) for sop in sops] == [(first, 1), (second, 1)]
    assert tokens[data["prefix_len"] - 1] == "<|endoftext|>"
    assert all(token["label"] is None for token in data["tokens"])


def test_prompt_has_no_end_when_it_is_to_be_continued(tokenizer):
    data = explain_prompt(tokenizer, "The block [gMASK]").as_json()
    assert data["tokens"][data["prefix_len"] - 1]["token"] == "[gMASK]"


def test_white_space_is_visible_when_printed(tokenizer):
    text = explain_training(tokenizer, "a b\nc\td", "causal", 0).as_text()
    assert "⏎" in text
    assert "→" in text


def test_picture_is_left_out_when_it_would_be_too_wide(tokenizer):
    text = explain_training(tokenizer, TEXT * 20, "mask", 0).as_text()
    assert "mask: left out" in text
    assert "●" not in text


def test_error_says_so_when_the_text_is_empty(tokenizer):
    with pytest.raises(ValueError, match="the text is empty"):
        explain_training(tokenizer, "", "mask", 0)
