"""Evaluation of text models on held-out text, and the baselines that they have to beat."""

from glm_core.evaluate.perplexity import Compression, bits_per_byte
from glm_core.evaluate.report import EvaluationConfig, evaluate

__all__ = ["Compression", "EvaluationConfig", "bits_per_byte", "evaluate"]
