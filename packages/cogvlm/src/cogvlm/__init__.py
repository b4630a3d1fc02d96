"""CogVLM: images in, on the GLM backbone.

Today this package holds no code: it reserves the name and the place in the layout.
It will hold the vision tower, the visual-expert language model, chat about a picture, and
grounding, built on `glm_core` and independent of the other packages beside it.
"""
