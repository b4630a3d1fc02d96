"""Which files a file imports."""

from __future__ import annotations

import pytest

from codegeex.complete.context.imports import PathTable, imported
from codegeex.languages import LANGUAGES

CASES = [
    ("python", "src/app/main.py", ["src/app/hole.py", "src/app/fim/__init__.py",
     "src/app/fim/prompt.py", "lib/tools.py", "src/app/deep/x.py"],
     "import os, lib.tools as t\nfrom app.hole import Hole\nfrom .fim import (\n  prompt, ids,\n)\n"
     "from .deep.x import y  # why\nfrom ..outside import z\n",
     ["src/app/hole.py", "src/app/fim/__init__.py", "src/app/fim/prompt.py", "src/app/deep/x.py",
      "lib/tools.py"]),
    ("python", "a/b/c.py", ["a/d.py", "d.py", "x/d.py"], "from ..d import e\n", ["a/d.py"]),
    ("python", "x/c.py", ["a/d.py", "x/d.py"], "import d\n", ["x/d.py"]),
    ("javascript", "src/a.js", ["src/b.js", "src/c/index.ts", "lib/d.mjs", "src/e.tsx"],
     "import b from './b';\nimport { c } from \"./c\";\nconst d = require('../lib/d.mjs');\n"
     "import react from 'react';\nexport * from './e.js'\n",
     ["src/b.js", "src/c/index.ts", "lib/d.mjs", "src/e.tsx"]),
    ("go", "cmd/main.go", ["cmd/other.go", "pkg/util/a.go", "pkg/util/b.go", "x.go"],
     'package main\nimport (\n\t"fmt"\n\tu "example.com/mod/pkg/util"\n)\n',
     ["cmd/other.go", "pkg/util/a.go", "pkg/util/b.go"]),
    ("rust", "src/main.rs", ["src/net/mod.rs", "src/net/tcp.rs", "src/io.rs"],
     "mod io;\nmod net;\nuse crate::net::tcp::Stream;\nuse std::fs;\n",
     ["src/io.rs", "src/net/mod.rs", "src/net/tcp.rs"]),
    ("c++", "src/a.cpp", ["src/a.hpp", "include/b.h", "src/c/d.h"],
     '#include <vector>\n#include "b.h"\n  #  include "c/d.h"\n',
     ["include/b.h", "src/c/d.h", "src/a.hpp"]),
    ("java", "src/x/A.java", ["src/x/y/B.java", "src/z/C.java"],
     "package x;\nimport x.y.B;\nimport static z.C.value;\nimport java.util.List;\n",
     ["src/x/y/B.java", "src/z/C.java"]),
    ("haskell", "A.hs", ["B.hs"], "import B\n", []),
]  # fmt: skip


@pytest.mark.parametrize(("language", "path", "others", "text", "expected"), CASES)
def test_imported_files_are_found(
    language: str, path: str, others: list[str], text: str, expected: list[str]
) -> None:
    table = PathTable([path, *others])
    assert imported(text, path, LANGUAGES[language], table) == expected


def test_nothing_is_imported_when_the_language_is_unknown() -> None:
    assert imported("import a\n", "x", None, PathTable(["a.py"])) == []


def test_path_leads_nowhere_outside() -> None:
    table = PathTable(["a.py"])
    text = "from ....etc import passwd\nimport ../a\n"
    assert imported(text, "x/y.py", LANGUAGES["python"], table) == []
    assert imported("import '../../../a'", "x.js", LANGUAGES["javascript"], table) == []
