"""Tokenizers behind one protocol, and the special tokens of the GLM family."""

from glm_core.tokenizer.byte_bpe import ByteBPETokenizer, token_lengths
from glm_core.tokenizer.incremental import IncrementalDecoder
from glm_core.tokenizer.loading import load_tokenizer
from glm_core.tokenizer.prompt import encode_prompt
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import BLANK_TOKENS, SPECIAL_TOKENS

__all__ = [
    "BLANK_TOKENS",
    "SPECIAL_TOKENS",
    "ByteBPETokenizer",
    "IncrementalDecoder",
    "Tokenizer",
    "encode_prompt",
    "load_tokenizer",
    "token_lengths",
]
