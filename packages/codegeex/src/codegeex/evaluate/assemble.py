"""A program of a problem's head, an answer, and tests.

Source: process_humaneval_test of THUDM/CodeGeeX and THUDM/CodeGeeX2, without its faults: packages
that a Go answer uses are not looked for in its comments and texts, and the head of a translation is
the target's declaration instead of the whole prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from codegeex.evaluate.cleanup import cleaned
from codegeex.evaluate.mask import mask
from codegeex.evaluate.problems import Problem

_PYTHON_IMPORTS = (
    *(f"import {name}" for name in "math re sys copy datetime itertools collections".split()),
    *(f"import {name}" for name in "heapq statistics functools hashlib string".split()),
    "from typing import *",
    "from collections import *",
)
_NUMPY_IMPORTS = ("import numpy", "import numpy as np")
_CPP_INCLUDES = "stdlib.h algorithm math.h stdio.h vector string climits cstring iostream".split()
_GO_PACKAGES = "math strings fmt strconv time bytes regexp sort math/rand crypto/md5".split()
_GO_IMPORT = re.compile(r'^import[ \t]*(?:\([^)]*\)|"[^"\n]*")[ \t]*\n?', re.MULTILINE)
_GO_QUOTED = re.compile(r'"([^"\n]+)"')
_RUST_MAIN = "\nfn main(){\n}\n\n"


def program(problem: Problem, answer: str, tests: str, translated: bool = False) -> str:
    """Returns the source text that is compiled and run.

    Args:
        problem: in the language of the answer.
        answer: what goes on after the problem's prompt, or declaration.
        tests: of the problem, all or some.
        translated: whether the answer goes on after the declaration.
    """
    head = problem.declaration if translated else problem.prompt
    return _BY_LANGUAGE[problem.language](problem, head, answer, tests)


def _python(problem: Problem, head: str, answer: str, tests: str) -> str:
    body = f"{head}{cleaned(answer, 'python')}\n{tests}\n"
    uses_numpy = re.search(r"\b(?:np|numpy)\b", body)  # a tenth of a second that few need
    imports = _PYTHON_IMPORTS + (_NUMPY_IMPORTS if uses_numpy else ())
    return "\n".join(imports) + "\n" + body


def _cpp(problem: Problem, head: str, answer: str, tests: str) -> str:
    known = set(re.findall(r"#\s*include\s*<\s*([^>\s]+)\s*>", head))
    missing = [f"#include<{name}>\n" for name in _CPP_INCLUDES if name not in known]
    return f"{''.join(missing)}\n{head}{answer}\n{tests}"


def _joined(problem: Problem, head: str, answer: str, tests: str) -> str:
    return f"{head}{answer}\n{tests}"


def _go(problem: Problem, head: str, answer: str, tests: str) -> str:
    """Imports exactly what is used: Go refuses an import too many as well as one too few."""
    rest = f"{_GO_IMPORT.sub('', head, count=1)}{answer}\n{tests}"
    masked = mask(rest, "go")
    known = set(_GO_QUOTED.findall(problem.test_setup))
    packages = dict.fromkeys([*_GO_PACKAGES, *_GO_QUOTED.findall(problem.imports)])
    wanted = [
        package
        for package in packages
        if package not in known
        and re.search(rf"(?<![\w.]){re.escape(package.rpartition('/')[2])}\.", masked)
    ]
    imports = "".join(f'    "{package}"\n' for package in wanted)
    return f"{problem.test_setup}\n" + (f"import (\n{imports})\n" if wanted else "") + rest


def _rust(problem: Problem, head: str, answer: str, tests: str) -> str:
    names = re.findall(r"\bfn\s+(\w+)", problem.declaration)
    is_declared = head == problem.declaration or (
        names and re.search(rf"\bfn\s+{names[-1]}\b", mask(head, "rust"))
    )
    declaration = "" if is_declared else problem.declaration  # CodeGeeX's prompts are the comment
    return f"{_RUST_MAIN}{declaration}{head}{answer}\n{tests}"


_BY_LANGUAGE: dict[str, Callable[[Problem, str, str, str], str]] = {
    "python": _python,
    "c++": _cpp,
    "java": _joined,
    "javascript": _joined,
    "go": _go,
    "rust": _rust,
}
