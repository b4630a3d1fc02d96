from glm_core.tokenizer.specials import with_other_names


def test_family_names_are_added_when_a_model_uses_its_own():
    named = with_other_names({"[MASK]": 7, "sop": 8, "<eop>": 9, "</s>": 2, "<dBLOCK>": 10})
    assert named["<|startofpiece|>"] == named["<sop>"] == 8
    assert named["<|endofpiece|>"] == named["eop"] == 9
    assert named["<|endoftext|>"] == named["<eos>"] == 2
    assert named["<|dBLOCK|>"] == 10
    assert "[gMASK]" not in named
    assert list(named)[:5] == ["[MASK]", "sop", "<eop>", "</s>", "<dBLOCK>"]


def test_name_keeps_its_id_when_it_is_in_use():
    named = with_other_names({"</s>": 2, "<eop>": 5, "<|endoftext|>": 5})
    assert (named["</s>"], named["<|endoftext|>"], named["<eos>"]) == (2, 5, 5)


def test_nothing_is_added_when_nothing_is_known():
    assert with_other_names({"<|user|>": 1}) == {"<|user|>": 1}
