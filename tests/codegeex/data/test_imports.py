import ast

import pytest

from codegeex.data.imports import imported


@pytest.mark.parametrize(
    ("language", "text", "names"),
    [
        (
            "python",
            "import os, a.b as c\nfrom . import x, y as z\nfrom ..p.q import r\n"
            "from m import (\n    n,\n)\n",
            ["os", "a/b", "./", "./x", "./y", "../p/q", "../p/q/r", "m", "m/n"],
        ),
        (
            "javascript",
            "import a, {b} from './util'\nconst c = require('../x/y')\n",
            ["util", "../x/y"],
        ),
        ("typescript", "export * from './types'\n", ["types"]),
        ("c++", '#include <vector>\n#include "parts/wheel.h"\n', ["parts/wheel.h"]),
        ("java", "import org.a.B;\nimport static org.c.D.e;\n", ["org/a/B", "org/c/D/e"]),
        ("rust", "mod parts;\nuse crate::wheel::Spoke;\n", ["parts", "wheel/Spoke"]),
        ("python", "", []),
    ],
)
def test_needs_are_found_when_lines_import(language, text, names):
    assert imported(text, language) == names


def test_modules_are_those_that_ast_finds_when_code_is_real():
    from pathlib import Path

    import codegeex.data

    for path in Path(codegeex.data.__file__).parent.glob("*.py"):
        text = path.read_text()
        wanted = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                wanted |= {name.name.replace(".", "/") for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                wanted.add(node.module.replace(".", "/"))
        assert wanted <= set(imported(text, "python"))
