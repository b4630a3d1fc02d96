"""Benchmarks of code: HumanEval-X and infilling; generation, and execution in a sandbox.

`problems.py` and `samples.py` read the files, `generate.py` writes samples with a model,
`assemble.py` makes a program of each, `execute.py` runs them in glm_core's sandbox with one runner
per language, and `score.py` counts. `infilling/` has the benchmarks with a hole.
"""
