"""The paged KV cache of the engine: many texts of any length, whose equal beginnings are shared."""

from glm_core.infer.paged.book import PagesExhausted
from glm_core.infer.paged.runner import Runner
from glm_core.infer.paged.store import PAGE_SIZE, bytes_per_page
from glm_core.infer.paged.text import PagedText
from glm_core.infer.paged.work import Work, stack_rows

__all__ = [
    "PAGE_SIZE",
    "PagedText",
    "PagesExhausted",
    "Runner",
    "Work",
    "bytes_per_page",
    "stack_rows",
]
