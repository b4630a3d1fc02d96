"""Where an answer ends."""

import pytest

from codegeex.evaluate.cleanup import cleaned, finished
from codegeex.evaluate.generate import end_of
from codegeex.evaluate.problems import languages, shipped_problems

CASES = [
    ("python", "    return 1\n\n\ndef other():\n    pass\n", "    return 1\n\n\n"),
    ("python", "    return 1\n# and so on\n", "    return 1\n"),
    ("python", "\n    return 1\nprint(f())", "\n    return 1\n"),
    ("python", "    s = '''\nno line\n'''\n    return s\nx = 1", None),
    ("c++", "    return 1;\n}\n\nint main() {\n}", "    return 1;\n}"),
    ("c++", '    if (a) { b("}"); } // }\n    return 1;\n}\nvoid g() {}', None),
    ("go", "    return 1\n\nfunc main() {\n}", "    return 1\n"),
    ("rust", "    1\n}\n\nfn main() {\n}", "    1\n}"),
    ("javascript", "  return `}`;\n}\nconsole.log(1)", "  return `}`;\n}"),
    ("java", "        return 1;\n    }\n    int g() { return 2; }\n}\nclass X {}", None),
    ("java", "        return 1;\n    public static void main(String[] a) {", None),
]
LONGER = {
    3: "    s = '''\nno line\n'''\n    return s\n",
    5: '    if (a) { b("}"); } // }\n    return 1;\n}',
    9: "        return 1;\n    }\n}",
    10: "        return 1;\n    \n}\n}",
}


@pytest.mark.parametrize("number", range(len(CASES)))
def test_answer_ends_with_its_function_when_the_model_goes_on(number):
    language, text, answer = CASES[number]
    wanted = LONGER[number] if answer is None else answer
    assert finished(text, language) == wanted
    assert cleaned(text, language) == wanted


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "    return 1\n\n    "),
        ("python", "    s = '''\nno line"),
        ("c++", "    if (a) { b(); }\n    return 1;"),
        ("go", "    s := `}`\n"),
        ("rust", "    // }\n    1"),
    ],
)
def test_answer_goes_on_when_its_function_is_open(language, text):
    assert finished(text, language) is None
    assert cleaned(text, language) == text


@pytest.mark.parametrize("language", list(languages()))
def test_solution_stays_whole_when_it_is_one_function(language):
    for problem in shipped_problems(language).values():
        solution = problem.canonical_solution
        if solution.count("fn words") or "private" in solution:
            continue  # helpers behind the function are beyond the rule
        answer = cleaned(solution + "\n\nint main() {}\nrest", language)
        assert answer.split() == solution.split()


@pytest.mark.parametrize("language", list(languages()))
def test_end_is_seen_at_once_when_text_comes_a_character_at_a_time(language):
    """The watcher looks only where a piece can have ended something, and misses nothing."""
    is_over = end_of(language)
    for problem in shipped_problems(language).values():
        text = problem.canonical_solution.rstrip() + "\nx = 1\n"
        ended = [is_over(text[: end + 1], text[end]) for end in range(len(text))]
        wanted = [finished(text[: end + 1], language) is not None for end in range(len(text))]
        assert ended.index(True) == wanted.index(True)
