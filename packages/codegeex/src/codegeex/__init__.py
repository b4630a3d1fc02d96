"""CodeGeeX: code on the GLM backbone.

Today this package holds no code: it reserves the name and the place in the layout.
It will hold fill-in-the-middle for source code, a completion server for editors, and the
HumanEval-X benchmark, built on `glm_core` and independent of the other packages beside it.
"""
