"""Prompts that a client wrote itself."""

from __future__ import annotations

import pytest

from codegeex.complete.raw_prompt import hole_of_text, text_ids
from codegeex.fim import FORMATS, MIDDLE, PREFIX, SUFFIX, fim_ids
from codegeex.hole import Hole
from codegeex.testing import tiny_code_tokenizer

SPM, PSM, CODEGEEX4 = FORMATS["spm"], FORMATS["psm"], FORMATS["codegeex4"]
TEXTS = {
    "spm": f"{SUFFIX}\n    pass{PREFIX}x = {MIDDLE}",
    "psm": f"{PREFIX}x = {SUFFIX}\n    pass{MIDDLE}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_prompt_is_what_the_hole_in_it_would_give(name: str) -> None:
    tokenizer, format = tiny_code_tokenizer(), FORMATS[name]
    hole = Hole(prefix="x = ", suffix="\n    pass")
    assert text_ids(TEXTS[name], format, tokenizer) == fim_ids(hole, format, tokenizer, 100)
    assert hole_of_text(TEXTS[name], format) == hole


def test_hole_is_found_in_a_template_of_codegeex4() -> None:
    prompt = (
        "<|user|>\n###REFERENCE:\n###PATH:b.py\ny\n###PATH:[object Object]\n###LANGUAGE:Python\n"
        f"###MODE:BLOCK\n{SUFFIX}\n{PREFIX}def f():{MIDDLE}<|assistant|>\n"
    )
    assert hole_of_text(prompt, CODEGEEX4) == Hole(prefix="def f():", suffix="\n")


@pytest.mark.parametrize("prompt", ["def f():", f"{PREFIX}x{MIDDLE}", f"{SUFFIX}y{PREFIX}x"])
def test_prompt_without_all_marks_is_no_hole(prompt: str) -> None:
    assert hole_of_text(prompt, SPM) is None
    assert hole_of_text(TEXTS["spm"], None) is None


def test_special_tokens_are_text_when_the_format_does_not_name_them() -> None:
    tokenizer = tiny_code_tokenizer()
    ids = text_ids("[MASK]<|endoftext|>", PSM, tokenizer)
    assert ids[-1] == tokenizer.eos_id and tokenizer.mask_id not in ids
    assert tokenizer.eos_id not in text_ids("<|endoftext|>", None, tokenizer)


def test_prompt_is_refused_when_it_is_empty() -> None:
    with pytest.raises(ValueError, match="the prompt is empty: give it some text"):
        text_ids("", SPM, tiny_code_tokenizer())
