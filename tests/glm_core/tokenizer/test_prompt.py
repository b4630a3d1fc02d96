import pytest

from glm_core.tokenizer import ByteBPETokenizer, encode_prompt


@pytest.fixture(scope="module")
def tokenizer():
    return ByteBPETokenizer.train(["The with statement wraps a block. " * 20], 350)


def test_markers_become_special_ids_when_the_user_writes_them(tokenizer):
    ids = encode_prompt(tokenizer, "The [MASK] wraps[sMASK] a[gMASK]")
    assert ids == [
        *tokenizer.encode("The"),
        tokenizer.mask_id,
        *tokenizer.encode(" wraps"),
        tokenizer.smask_id,
        *tokenizer.encode(" a"),
        tokenizer.gmask_id,
    ]


def test_other_special_names_stay_text_when_written(tokenizer):
    text = "a <|endoftext|> [CLS] [mask]"
    assert encode_prompt(tokenizer, text) == tokenizer.encode(text)


def test_only_one_space_goes_when_several_stand_before_a_marker(tokenizer):
    expected = [*tokenizer.encode("x  "), tokenizer.mask_id]
    assert encode_prompt(tokenizer, "x   [MASK]") == expected


def test_space_stays_when_no_marker_follows(tokenizer):
    assert encode_prompt(tokenizer, "[MASK] x ") == [tokenizer.mask_id, *tokenizer.encode(" x ")]


def test_neighbouring_markers_have_nothing_between_when_one_space_separates_them(tokenizer):
    assert encode_prompt(tokenizer, "[MASK] [MASK]") == [tokenizer.mask_id] * 2
