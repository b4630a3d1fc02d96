"""WebGLM: answers from the web with numbered citations.

Today this package holds no code: it reserves the name and the place in the layout.
It will hold search, fetching, ranking and cited answers, built on `glm_core` and independent
of the other packages beside it.
"""
