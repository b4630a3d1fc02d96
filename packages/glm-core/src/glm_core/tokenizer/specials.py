"""The special tokens of the GLM family, by the names users write.

Special tokens are never produced by encoding text: they have their own ids, which only code
(or `encode_prompt`, when a person asks for it) puts into a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping

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

ROLE_TOKENS: tuple[str, ...] = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
"""Open a message of a chat, in the order of their ids, in the models that have them."""

_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    EOS: ("</s>", "<eos>"),
    SOP: ("<sop>", "sop"),
    EOP: ("<eop>", "eop"),
    DBLOCK: ("<dBLOCK>", "[dBLOCK]", "dBLOCK"),
}


def with_other_names(specials: Mapping[str, int]) -> dict[str, int]:
    """Adds the names under which other members of the family know the same special tokens.

    Args:
        specials: ids by the names that a released model uses; these stay first, and a name that
            is in use keeps its id.

    Returns:
        `specials`, then every name of `SPECIAL_TOKENS` that means one of them, and its variants.
    """
    named = dict(specials)
    for name, others in _OTHER_NAMES.items():
        ids = [named[known] for known in (name, *others) if known in named]
        named |= {new: ids[0] for new in (name, *others) if ids and new not in named}
    return named
