"""Weights on disk: models of any released format, and training states that survive anything."""

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.loading import load_model
from glm_core.checkpoint.pretrained import save_pretrained

__all__ = ["CheckpointError", "load_model", "save_pretrained"]
