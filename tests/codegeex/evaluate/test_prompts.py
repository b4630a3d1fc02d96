"""What a model is given."""

from codegeex.evaluate.problems import shipped_problems
from codegeex.evaluate.prompts import PromptStyle, generation_prompt, translation_prompt


def test_prompt_has_no_tag_and_no_blanks_around_when_it_is_as_codegeex2_was_measured():
    problem = shipped_problems("javascript")["JavaScript/0"]
    assert generation_prompt(problem) == problem.prompt.strip()


def test_prompt_begins_with_the_language_when_it_is_tagged():
    problem = shipped_problems("c++")["CPP/0"]
    prompt = generation_prompt(problem, PromptStyle.tagged)
    assert prompt == "// language: C++\n" + problem.prompt


def test_prompt_is_as_in_the_file_when_it_is_plain():
    problem = shipped_problems("python")["Python/0"]
    assert generation_prompt(problem, PromptStyle.plain) == problem.prompt


def test_declaration_follows_when_a_prompt_is_only_its_comment():
    problem = shipped_problems("rust")["Rust/5"]
    assert "fn " not in problem.prompt
    prompt = generation_prompt(problem, PromptStyle.plain)
    assert prompt == problem.prompt + problem.declaration
    full = shipped_problems("rust")["Rust/0"]
    assert generation_prompt(full, PromptStyle.plain) == full.prompt


def test_translation_names_both_languages_as_people_write_them():
    source, target = (
        shipped_problems("c++")["CPP/1"],
        shipped_problems("javascript")["JavaScript/1"],
    )
    assert translation_prompt(source, target) == (
        f"code translation\nC++:\n{source.declaration}\n{source.canonical_solution.rstrip()}\n"
        f"JavaScript:\n{target.declaration}"
    )
