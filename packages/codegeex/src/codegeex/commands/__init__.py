"""The subcommands of ``codegeex``: one module each, as glm_core/commands/__init__.py says."""

from __future__ import annotations

COMMANDS: dict[str, str] = {
    "generate": "complete code between a prefix and a suffix, or in a file",
    "serve": "serve completions to editors over HTTP, in the protocols of their plugins",
    "lsp": "serve completions to an editor as a language server, over stdin and stdout",
    "prepare": "make training data of source code: filter, deduplicate, split, tokenise",
    "train": "train a code model; the same command again resumes",
    "evaluate": "HumanEval-X and infilling benchmarks; runs programs in a sandbox",
    "bench": "measure the round trip of an editor, against what people use today",
}
