"""Programs of a head, an answer and tests."""

from dataclasses import replace

import pytest

from codegeex.evaluate.assemble import program
from codegeex.evaluate.problems import Problem, shipped_problems

GO = Problem(
    task_id="Go/0",
    language="go",
    prompt='import (\n    "math"\n    "errors"\n)\n\n// Uses time. and strings.\nfunc F() {\n',
    declaration="\nfunc F() {\n",
    canonical_solution="",
    test="func TestF(t *testing.T) {}\n",
    example_test="",
    imports='import (\n    "math"\n    "errors"\n)\n',
    test_setup='package main\n\nimport (\n    "testing"\n    "sort"\n)\n',
)


def go_imports(answer, **changes):
    source = program(replace(GO, **changes), answer, GO.test)
    rest = source.removeprefix(GO.test_setup)
    assert source.startswith(GO.test_setup)
    assert rest.count("import (") <= 1
    block = rest[rest.index("import (") :].partition(")")[0] if "import (" in rest else ""
    return [line.strip().strip('"') for line in block.splitlines()[1:]]


def test_go_imports_are_those_that_are_used_when_the_prompt_has_others():
    assert go_imports("    fmt.Println(math.Pi)\n}\n") == ["math", "fmt"]
    assert go_imports("    return\n}\n") == []
    assert go_imports("    panic(errors.New(``))\n}\n") == ["errors"]


def test_go_imports_leave_out_what_only_comments_and_texts_name():
    """The original looks for `time.` in the whole answer and imports what is never used."""
    answer = '    // at the same time. And math. too\n    println("strings.", `bytes.`)\n}\n'
    assert go_imports(answer) == []
    assert go_imports("    runtime.GC(); x.sort.y()\n}\n") == []


def test_go_imports_leave_out_what_the_tests_import_themselves():
    assert go_imports("    sort.Ints(nil); _ = md5.Sum(nil); rand.Int()\n}\n") == [
        "math/rand",
        "crypto/md5",
    ]


def test_go_prompt_loses_its_import_when_it_is_one_line():
    changes = {"prompt": 'import "math"\n\nfunc F() {\n', "imports": 'import "math"\n'}
    source = program(replace(GO, **changes), "    math.Abs(1)\n}\n", GO.test)
    assert source.count('"math"') == 1
    assert 'import "math"' not in source


def test_rust_program_declares_the_function_once_in_both_layouts():
    problems = list(shipped_problems("rust").values())
    for problem in problems:
        name = problem.declaration.rpartition("fn ")[2].partition("(")[0]
        source = program(problem, problem.canonical_solution, problem.test)
        assert source.count(f"fn {name}(") == 1
        assert source.count("fn main(") == 1
        assert source.count("use std::any") == 1
    assert not any("fn " in problem.prompt for problem in problems[-1:])  # CodeGeeX's layout
    assert all("fn " in problem.prompt for problem in problems[:-1])  # CodeGeeX2's


def test_python_answer_is_cut_at_its_first_line_without_indentation():
    problem = shipped_problems("python")["Python/0"]
    source = program(problem, "    return 6\nraise SystemExit\n", "check()")
    assert "SystemExit" not in source
    assert source.endswith("    return 6\n\ncheck()\n")


def test_numpy_is_imported_only_when_a_program_names_it():
    problem = shipped_problems("python")["Python/0"]
    assert "numpy" not in program(problem, "    return 1\n", "check()")
    assert "import numpy as np\n" in program(problem, "    return np.max(numbers)\n", "check()")


def test_cpp_program_includes_what_the_prompt_does_not():
    problem = shipped_problems("c++")["CPP/0"]
    source = program(problem, problem.canonical_solution, problem.test)
    for name in "stdlib.h algorithm math.h stdio.h vector string climits cstring iostream".split():
        assert source.count(f"#include<{name}>") == 1


@pytest.mark.parametrize("language", ["python", "c++", "java", "javascript", "go", "rust"])
def test_translation_goes_on_after_the_declaration_alone(language):
    """The original puts the whole prompt of the translation into the program."""
    problem = next(iter(shipped_problems(language).values()))
    source = program(problem, problem.canonical_solution, problem.test, translated=True)
    assert "neighbours" not in source  # a word of the comment
    assert problem.canonical_solution.strip() in source
    assert problem.test.strip() in source
