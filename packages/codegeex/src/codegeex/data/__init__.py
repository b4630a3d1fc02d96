"""Training data made of source code: filters, duplicates, split, packing order, shards."""

from codegeex.data.config import PrepareConfig
from codegeex.data.prepare import prepare_code
from codegeex.data.tokens import read_prefixes

__all__ = ["PrepareConfig", "prepare_code", "read_prefixes"]
