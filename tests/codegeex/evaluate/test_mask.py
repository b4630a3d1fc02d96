"""Comments and texts are hidden, and nothing else."""

import pytest

from codegeex.evaluate.mask import mask


@pytest.mark.parametrize(
    ("language", "code", "hidden"),
    [
        ("python", "a = '}' # {\nb", "a =     " + "   \nb"),
        ("python", "a = '''x\n}''' + \"\\\"{\"", "a = " + " " * 9 + " + " + " " * 5),
        ("python", 'a = """{\n', "a = " + " " * 5),
        ("c++", 'f("}\\"{"); // {\n}', "f(" + " " * 6 + "); " + " " * 4 + "\n}"),
        ("c++", "x = '{'; /* } */ y", "x =    ;         y"),
        ("c++", 'R"x({)" })x" }', " " * 12 + " }"),
        ("java", 's = """\n  { "a" }\n""";', "s = " + " " * 17 + ";"),
        ("javascript", "`${a}{` + /[/{]}/g.b(c / d)", " " * 7 + " +" + " " * 8 + "g.b(c / d)"),
        ("javascript", "const r = a / b / c; // {", "const r = a / b / c;     "),
        ("go", "a := `}\n{` + '{' + \"}\"", "a := " + " " * 5 + " +     +    "),
        ("rust", "fn f<'a>(x: &'a str) { '{' }", "fn f<'a>(x: &'a str) {     }"),
        ("rust", 'r#"{" }"# }', "          " + "}"),
        ("rust", "'\\u{7d}' '\\'' '}'", " " * 17),
        ("cobol", "{ ' }", "{ ' }"),
    ],
)
def test_only_comments_and_texts_are_hidden_when_code_has_them(language, code, hidden):
    assert mask(code, language) == hidden
    assert len(mask(code, language)) == len(code)
