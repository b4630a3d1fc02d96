"""Benchmarks with a hole: files of human-eval-infilling and SAFIM, and holes in source files.

`task.py` says what a hole of a benchmark is, `humaneval.py`, `safim.py` and `held_out.py` make
them, `complete.py` has a model fill them, and `similarity.py` compares texts.
"""
