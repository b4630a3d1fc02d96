"""What a file needs of its own repository, as far as its import lines tell."""

from __future__ import annotations

import re

_MOST = 200
_PYTHON = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+(?:\(([^()]*)|([\w, \t]+))"
    r"|import[ \t]+([\w., \t]+))",
    re.M,
)
_QUOTED = re.compile(
    r"""^\s*(?:import\b[^'"\n]*|export\b[^'"\n]*\bfrom\s*|.*\brequire\(\s*|#\s*include\s+)['"]([^'"\n]+)['"]""",
    re.M,
)
_JAVA = re.compile(r"^import\s+(?:static\s+)?([\w.]+)\s*;", re.M)
_RUST = re.compile(r"^\s*(?:pub\s+)?(?:mod\s+(\w+)\s*;|use\s+(?:crate|super|self)::([\w:]+))", re.M)


def imported(text: str, language: str) -> list[str]:
    """Paths without an ending, with slashes; a leading "./" or "../" is relative to the file."""
    if language == "python":
        names = _python(text)
    elif language in ("java", "kotlin", "scala"):
        names = [name.replace(".", "/") for name in _JAVA.findall(text)]
    elif language == "rust":
        names = [a or b.replace("::", "/") for a, b in _RUST.findall(text)]
    else:
        names = [name.removeprefix("./") for name in _QUOTED.findall(text)]
    return list(dict.fromkeys(names))[:_MOST]


def _python(text: str) -> list[str]:
    names: list[str] = []
    for module, in_parentheses, members, modules in _PYTHON.findall(text):
        if modules:
            names.extend(_slashes(name.split()[0]) for name in modules.split(",") if name.split())
            continue
        names.append(_slashes(module))
        inside = module if module.endswith(".") else f"{module}."
        for member in (in_parentheses or members).split(","):
            if member.split():
                names.append(_slashes(inside + member.split()[0]))
    return [name for name in names if name]


def _slashes(module: str) -> str:
    """`.a.b` as ./a/b, `..a` as ../a, `a.b` as a/b."""
    dots = len(module) - len(module.lstrip("."))
    rest = module.lstrip(".").replace(".", "/")
    if not dots:
        return rest
    return f"{'./' if dots == 1 else '../' * (dots - 1)}{rest}"
