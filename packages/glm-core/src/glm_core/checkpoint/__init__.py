"""Weights on disk: training checkpoints that survive anything, and models to share."""

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.pretrained import load_pretrained, save_pretrained

__all__ = ["CheckpointError", "load_pretrained", "save_pretrained"]
