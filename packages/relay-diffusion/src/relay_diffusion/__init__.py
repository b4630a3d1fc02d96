"""Relay diffusion: images out.

Today this package holds no code: it reserves the name and the place in the layout.
It will hold class-conditional and text-conditional relay diffusion with its samplers and
metrics, built on `glm_core` and independent of the other packages beside it.
"""
