"""What a code model learns: the next token, of rows that hold holes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from codegeex.fim.format import FimFormat
from codegeex.fim.formats import write_format
from glm_core.model.config import TransformerConfig
from glm_core.model.transformer import Transformer
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.train.blank_infilling import BlankInfillingTask
from glm_core.tune.lora_training import LoraConfig, add_lora, merge_lora, save_lora

ADAPTER = "adapter"
"""Folder beside the exported model with what LoRA added."""


class CodeTask(BlankInfillingTask):
    """Next-token prediction, from random weights or from a model that goes on learning.

    Args:
        model_config: the transformer.
        tokenizer: goes into the exported folder.
        format: of the holes; the exported folder says which one the model learnt.
        begun: the model that goes on, with its weights as numbers; None for random weights.
        lora: what is added to it.
        seed: decides random weights.
        attention: backend of the layers.
    """

    def __init__(
        self,
        model_config: TransformerConfig,
        tokenizer: Tokenizer,
        format: FimFormat,
        *,
        begun: Transformer | None = None,
        lora: LoraConfig | None = None,
        seed: int = 1234,
        attention: str = "auto",
    ) -> None:
        super().__init__(model_config, tokenizer, seed, attention)
        self._format = format
        self._begun = begun
        self._lora = lora or LoraConfig()

    def build_model(self) -> nn.Module:
        """The model with its starting weights; with LoRA all but the added ones are frozen."""
        if self._begun is None:
            return super().build_model()
        model = self._begun.float()
        model.choose_attention(self.attention)
        if self._lora.rank:
            add_lora(model, self._lora, self.seed)
        return model

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes the folder that the other commands take as --model.

        With LoRA the weights in it hold what was learnt, and beside it lies the adapter alone.
        """
        assert isinstance(model, Transformer)
        if self._lora.rank:
            save_lora(model, folder.with_name(ADAPTER), self._lora)
            merge_lora(model, self._lora)
        super().export(model, folder)
        write_format(self._format, folder)
