"""Which files of a repository a file imports, as far as its text tells."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from codegeex.languages import Language

_HEAD = 20_000
"""Characters at the beginning of a file in which imports are looked for."""
_PYTHON_FROM = re.compile(r"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|.*)", re.M)
_PYTHON_IMPORT = re.compile(r"^[ \t]*import[ \t]+([\w., \t]+)", re.M)
_SCRIPT = re.compile(r"""(?:\bfrom|\bimport|\brequire\s*\()\s*['"](\.{1,2}/[^'"]+)['"]""")
_GO_BLOCK = re.compile(r"^import\s*(?:\(([^)]*)\)|\w*\s*(\"[^\"]+\"))", re.M)
_RUST_USE = re.compile(r"\buse\s+(?:crate|self|super)::([\w:]+)")
_RUST_MOD = re.compile(r"\bmod\s+(\w+)\s*;")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.M)
_JAVA = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?([\w.]+)", re.M)
_SCRIPT_ENDINGS = (".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".d.ts")


class PathTable:
    """The paths of a repository, found by their ends.

    Args:
        paths: relative to its root, with slashes.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = {}
        self._by_folder: dict[str, list[str]] = {}
        for path in paths:
            folder, name = posixpath.split(path)
            self._by_name.setdefault(name, []).append(path)
            self._by_folder.setdefault(folder, []).append(path)

    def file(self, tail: str, near: str) -> str | None:
        """Returns the path that ends with `tail` and has most folders in common with `near`."""
        tail = posixpath.normpath(tail)
        known = self._by_name.get(posixpath.basename(tail), ())
        ends = [path for path in known if path == tail or path.endswith(f"/{tail}")]
        return max(ends, key=lambda path: (_common(path, near), -len(path)), default=None)

    def exact(self, path: str) -> str | None:
        """Returns a path if there is such a file."""
        path = posixpath.normpath(path)
        return path if path in self._by_name.get(posixpath.basename(path), ()) else None

    def folder(self, tail: str) -> Sequence[str]:
        """Returns the files of the folder that ends with most of `tail`."""
        parts = tail.strip("/").split("/")
        for begin in range(len(parts)):
            end = "/".join(parts[begin:])
            for folder, paths in self._by_folder.items():
                if folder == end or folder.endswith(f"/{end}"):
                    return paths
        return ()


def imported(text: str, path: str, language: Language | None, table: PathTable) -> list[str]:
    """Returns the files that a file imports, in the order in which it names them.

    Args:
        text: its beginning is enough.
        path: relative to the root.
    """
    finder = _FINDERS.get(language.key) if language else None
    if finder is None:
        return []
    found = finder(text[:_HEAD], path, table)
    return list(dict.fromkeys(one for one in found if one and one != path))


def _python(text: str, path: str, table: PathTable) -> Iterator[str | None]:
    for dots, module, names in _PYTHON_FROM.findall(text):
        folder = posixpath.dirname(path)
        for _ in range(len(dots) - 1):
            folder = posixpath.dirname(folder)
        tail = posixpath.join(folder if dots else "", module.replace(".", "/"))
        find: Callable[[str], str | None] = (
            table.exact if dots else lambda one: table.file(one, path)
        )
        yield find(f"{tail}.py") or find(f"{tail}/__init__.py")
        for name in re.findall(r"\w+", names.partition("#")[0]):
            yield find(f"{tail}/{name}.py")
    for modules in _PYTHON_IMPORT.findall(text):
        for module in modules.split(","):
            tail = module.split(" as ")[0].strip().replace(".", "/")
            yield tail and (
                table.file(f"{tail}.py", path) or table.file(f"{tail}/__init__.py", path)
            )


def _script(text: str, path: str, table: PathTable) -> Iterator[str | None]:
    for target in _SCRIPT.findall(text):
        base = posixpath.join(posixpath.dirname(path), target)
        stem = posixpath.splitext(base)[0]
        tries = [base, *(base + end for end in _SCRIPT_ENDINGS)]
        tries += [stem + end for end in _SCRIPT_ENDINGS]
        tries += [f"{base}/index{end}" for end in _SCRIPT_ENDINGS]
        yield next((one for one in map(table.exact, tries) if one), None)


def _go(text: str, path: str, table: PathTable) -> Iterator[str | None]:
    yield from table.folder(posixpath.dirname(path)) if posixpath.dirname(path) else ()
    for block, single in _GO_BLOCK.findall(text):
        for target in re.findall(r'"([^"]+)"', block or single):
            if "/" in target:
                yield from table.folder(target)


def _rust(text: str, path: str, table: PathTable) -> Iterator[str | None]:
    folder = posixpath.dirname(path)
    for name in _RUST_MOD.findall(text):
        below = posixpath.splitext(path)[0]
        tries = (f"{folder}/{name}.rs", f"{folder}/{name}/mod.rs", f"{below}/{name}.rs")
        yield next((one for one in map(table.exact, tries) if one), None)
    for target in _RUST_USE.findall(text):
        parts = [part for part in target.split("::") if part]
        for size in range(len(parts), 0, -1):
            tail = "/".join(parts[:size])
            found = table.file(f"{tail}.rs", path) or table.file(f"{tail}/mod.rs", path)
            if found:
                yield found
                break


def _include(text: str, path: str, table: PathTable) -> Iterator[str | None]:
    stem = posixpath.splitext(path)[0]
    for target in _INCLUDE.findall(text):
        yield table.exact(posixpath.join(posixpath.dirname(path), target)) or table.file(
            target, path
        )
    for ending in (".h", ".hpp", ".hh"):
        yield table.exact(stem + ending)


def _java(text: str, path: str, table: PathTable) -> Iterator[str | None]:
    for target in _JAVA.findall(text):
        parts = target.split(".")
        for size in (len(parts), len(parts) - 1):  # a static import names a member
            yield table.file("/".join(parts[:size]) + ".java", path) if size else None


_FINDERS: dict[str, Callable[[str, str, PathTable], Iterator[str | None]]] = {
    "python": _python,
    "javascript": _script,
    "typescript": _script,
    "vue": _script,
    "go": _go,
    "rust": _rust,
    "c": _include,
    "c++": _include,
    "cuda": _include,
    "objective-c": _include,
    "java": _java,
}


def _common(left: str, right: str) -> int:
    """How many folders two paths have in common, from the root on."""
    count = 0
    for one, other in zip(left.split("/")[:-1], right.split("/")[:-1], strict=False):
        if one != other:
            break
        count += 1
    return count
