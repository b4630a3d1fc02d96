"""The special tokens of the GLM family, by the names users write.

Special tokens are never produced by encoding text: they have their own ids, which only code
(or `encode_prompt`, when a person asks for it) puts into a sequence.
"""

from __future__ import annotations

EOS = "<|endoftext|>"
CLS = "[CLS]"
MASK = "[MASK]"
SMASK = "[sMASK]"
GMASK = "[gMASK]"
SOP = "<|startofpiece|>"
EOP = "<|endofpiece|>"
DBLOCK = "<|dBLOCK|>"

SPECIAL_TOKENS: tuple[str, ...] = (EOS, CLS, MASK, SMASK, GMASK, SOP, EOP, DBLOCK)
"""All special names in the order of their ids. `EOS` is the padding token too."""

BLANK_TOKENS: tuple[str, ...] = (MASK, SMASK, GMASK)
"""The markers that stand for a blank in a prompt."""
