"""Where a model expects its context and its answer: tokens around them, positions, prefix.

Serving code asks a layout and never the model's name. A layout is a small value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from glm_core.model.config import GenerationLayout, PromptFrame, TransformerConfig
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import BLANK_TOKENS, GMASK, SOP


@dataclass(frozen=True)
class BlankSlot:
    """A place that an answer fills."""

    marker: str
    """[MASK], [sMASK] or [gMASK]; empty where a causal model simply goes on."""
    index: int
    """Column of the marker's token in the context; -1 without marker."""


class Layout(Protocol):
    """What the decoding loop needs to know about a kind of model."""

    @property
    def has_blanks(self) -> bool:
        """Whether the model fills blanks; otherwise it only continues."""
        ...

    def frame(self, text_ids: list[int], tokenizer: Tokenizer) -> list[int]:
        """Returns the whole context for the tokens of a prompt."""
        ...

    def opening(self, tokenizer: Tokenizer) -> list[int]:
        """Returns the tokens that open each answer."""
        ...

    def prefix_len(self, context_len: int) -> int:
        """Returns how many columns of the context every token sees."""
        ...

    def position(self, context_len: int, slot: BlankSlot, step: int) -> tuple[int, int]:
        """Returns (position, block position) of an answer's input `step`; 0 is its first."""
        ...


@dataclass(frozen=True)
class BlankLayout:
    """GLM: `[CLS] text <eos>`, then per blank `<sop> answer` at the position of its mask token.

    The end token is left out when the text ends with a blank of `open_ends`: [gMASK] stands for all
    that follows. Source: arXiv 2103.10360, section 2; THUDM/GLM generate_samples.py.
    """

    gmask_goes_on: bool = False
    """GLM-130B: after [gMASK] positions count on instead of staying at the mask."""
    starts_with_cls: bool = True
    ends_with_eos: bool = True
    open_ends: tuple[str, ...] = (GMASK,)

    @property
    def has_blanks(self) -> bool:
        return True

    def frame(self, text_ids: list[int], tokenizer: Tokenizer) -> list[int]:
        ids = [tokenizer.cls_id, *text_ids] if self.starts_with_cls else list(text_ids)
        blanks = {tokenizer.token_id(name) for name in self.open_ends if tokenizer.has(name)}
        is_open = not text_ids or text_ids[-1] in blanks
        return ids if is_open or not self.ends_with_eos else [*ids, tokenizer.eos_id]

    def opening(self, tokenizer: Tokenizer) -> list[int]:
        return [tokenizer.sop_id]

    def prefix_len(self, context_len: int) -> int:
        return context_len

    def position(self, context_len: int, slot: BlankSlot, step: int) -> tuple[int, int]:
        if self.gmask_goes_on and slot.marker == GMASK:
            return context_len + step, step + 1
        return slot.index, step + 1


@dataclass(frozen=True)
class CausalLayout:
    """ChatGLM2/3, GLM-4 and other causal models: the answer goes on where the context ends."""

    begins_with: tuple[str, ...] = ()
    """Special tokens before the text, by name; ChatGLM2 has [gMASK] and <|startofpiece|>."""

    @property
    def has_blanks(self) -> bool:
        return False

    def frame(self, text_ids: list[int], tokenizer: Tokenizer) -> list[int]:
        return [*(tokenizer.token_id(name) for name in self.begins_with), *text_ids]

    def opening(self, tokenizer: Tokenizer) -> list[int]:
        return []

    def prefix_len(self, context_len: int) -> int:
        return 0

    def position(self, context_len: int, slot: BlankSlot, step: int) -> tuple[int, int]:
        return context_len + step, 0


_BEFORE_CAUSAL = {PromptFrame.gmask_sop: (GMASK, SOP), PromptFrame.bos: ("<s>",)}


def layout_for(config: TransformerConfig) -> Layout:
    """Returns the layout that a model's config names."""
    frame = config.prompt_frame
    if config.generation_layout == GenerationLayout.causal:
        return CausalLayout(_BEFORE_CAUSAL.get(frame, ()))
    return BlankLayout(
        gmask_goes_on=config.generation_layout == GenerationLayout.blank_1d,
        starts_with_cls=frame in (PromptFrame.cls_eos, PromptFrame.cls_eos_unless_blank),
        ends_with_eos=frame != PromptFrame.bare,
        open_ends=(GMASK,) if frame == PromptFrame.cls_eos else BLANK_TOKENS,
    )
