"""Weights on disk: training checkpoints that survive anything, and models to share."""
