"""Inference: filling blanks, continuing text, streaming it, and searching with beams."""

from glm_core.infer.beginning import Begins
from glm_core.infer.blanks import Filled, FilledBlank, has_marker
from glm_core.infer.grammar import Choices, Grammar, JsonObject, JsonSchema, Lark, Regex
from glm_core.infer.kv_cache import KVCache
from glm_core.infer.layout import BlankLayout, CausalLayout, Layout, layout_for
from glm_core.infer.sampling import SamplingConfig
from glm_core.infer.text_generator import Completion, TextGenerator

__all__ = [
    "Begins",
    "BlankLayout",
    "CausalLayout",
    "Choices",
    "Completion",
    "Filled",
    "FilledBlank",
    "Grammar",
    "JsonObject",
    "JsonSchema",
    "KVCache",
    "Lark",
    "Layout",
    "Regex",
    "SamplingConfig",
    "TextGenerator",
    "has_marker",
    "layout_for",
]
