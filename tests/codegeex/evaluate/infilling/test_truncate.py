"""What of a completion belongs into a hole."""

import pytest

from codegeex.evaluate.infilling.truncate import IS_OVER, TRUNCATE, block, call, control

PYTHON = ("for i in range(3):\n    ", "\nprint('end')\n")
CPP = ("int main() {\n    for (int i = 0; i < 3; i++) {\n        ", "\n    }\n    return 0;\n}\n")
JAVA = ("class A {\n    int f(int x) {\n        ", "\n    }\n}\n")


@pytest.mark.parametrize(
    ("language", "around", "completion", "kept"),
    [
        ("python", PYTHON, "print(i)", "print(i)"),
        ("python", PYTHON, "x = i\n    print(x)\nprint('more')\n", "x = i\n    print(x)\n"),
        ("python", PYTHON, "if i:\n        print(i)\n    else", "if i:\n        print(i)\n"),
        ("python", PYTHON, "print(i\n", ""),
        ("c++", CPP, "int x = i;\n        f(x);", "int x = i;\n        f(x);"),
        ("c++", CPP, "f(i);\n    }\n    {\n        g(1);", "f(i);\n"),
        ("c++", CPP, "f(i); }\n    return 0;\n}\nint g() {\n", ""),
        ("java", JAVA, "return x;\n    }\n    int g() {\n        return 1;", "return x;\n"),
        (
            "java",
            JAVA,
            "if (x > 0) {\n return 1;\n }\n return 2;",
            "if (x > 0) {\n return 1;\n }\n return 2;",
        ),
        ("c#", JAVA, "anything {", "anything {"),
    ],
)
def test_block_ends_where_the_rest_of_the_program_would_change(language, around, completion, kept):
    assert block(language, *around, completion) == kept


@pytest.mark.parametrize(
    ("language", "completion", "kept"),
    [
        ("python", " x in range(3):\n    print(x)", " x in range(3):"),
        ("c++", "int i = 0; i < f(3); i++) { g(); }", "int i = 0; i < f(3); i++"),
        ("java", 'x.equals(")")) {', 'x.equals(")")'),
        ("java", "a < (b", "a < (b"),
    ],
)
def test_head_ends_with_its_line_or_bracket(language, completion, kept):
    assert control(language, "", "", completion) == kept


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        ("np.ones((3, 4)) + 1", "np.ones((3, 4))"),
        ("np.ones(')', f(1))\nmore()", "np.ones(')', f(1))"),
        ("np.ones(3", "np.ones(3"),
        ("x) + 1", "x"),
    ],
)
def test_call_ends_with_its_arguments(completion, kept):
    assert call("python", "", "", completion) == kept


@pytest.mark.parametrize(
    ("kind", "language", "text"),
    [
        ("block", "python", "print(i)\n    x = 1\ny"),
        ("block", "c++", "f(i); { } }"),
        ("control", "python", " x in y:\n"),
        ("control", "c++", "f(1); g(2))"),
        ("api", "java", "f(g(1), h())"),
    ],
)
def test_end_is_seen_with_its_last_character_when_text_grows(kind, language, text):
    ended = [IS_OVER[kind](language, "    ", text[: n + 1], text[n]) for n in range(len(text))]
    assert ended.index(True) == len(text) - 1
    assert TRUNCATE[kind]
