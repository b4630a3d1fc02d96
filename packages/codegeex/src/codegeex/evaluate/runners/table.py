"""All runners, by language."""

from __future__ import annotations

from codegeex.evaluate.runners.base import Runner
from codegeex.evaluate.runners.cpp import CppRunner
from codegeex.evaluate.runners.go import GoRunner
from codegeex.evaluate.runners.java import JavaRunner
from codegeex.evaluate.runners.javascript import JavaScriptRunner
from codegeex.evaluate.runners.python import PythonRunner
from codegeex.evaluate.runners.rust import RustRunner


def make_runners(rust_crates: str = "") -> dict[str, Runner]:
    """Returns a runner for every language of HumanEval-X, by key of `codegeex.languages`.

    Args:
        rust_crates: folder with the crates that Rust's problems use; empty where there is none.
    """
    return {
        "python": PythonRunner(),
        "c++": CppRunner(),
        "java": JavaRunner(),
        "javascript": JavaScriptRunner(),
        "go": GoRunner(),
        "rust": RustRunner(rust_crates),
    }
