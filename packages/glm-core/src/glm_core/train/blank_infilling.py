"""Autoregressive blank infilling: GLM's pretraining objective as a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.model.config import TransformerConfig
from glm_core.model.transformer import Transformer
from glm_core.train.task import LossSum

if TYPE_CHECKING:
    from glm_core.data.batch import Batch
    from glm_core.tokenizer.protocol import Tokenizer


class BlankInfillingTask:
    """Cross-entropy of the blanks' tokens given the corrupted text; any mask kind, causal included.

    Args:
        model_config: the transformer.
        tokenizer: goes into the exported folder; its ids must fit the model's vocabulary.
        seed: decides the starting weights.
        attention: backend of the layers; a key of `glm_core.attention.BACKENDS`, or auto.

    Source: arXiv 2103.10360, section 2.1.
    """

    def __init__(
        self,
        model_config: TransformerConfig,
        tokenizer: Tokenizer,
        seed: int = 1234,
        attention: str = "auto",
    ) -> None:
        if tokenizer.vocab_size > model_config.vocab_size:
            raise ValueError(
                f"model.vocab_size is {model_config.vocab_size}, but the tokenizer has"
                f" {tokenizer.vocab_size} ids; set model.vocab_size={tokenizer.vocab_size} or more"
            )
        self.model_config = model_config
        self.tokenizer = tokenizer
        self.seed = seed
        self.attention = attention
        self._matrix_size = _matmul_parameters(model_config)

    def build_model(self) -> nn.Module:
        """The transformer with fresh weights."""
        model = Transformer(self.model_config, self.attention)
        model.init_weights(self.seed)
        return model

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed cross-entropy in nats and the number of targets."""
        assert isinstance(model, Transformer)
        hidden_BTD = model(batch.input_ids, batch.position_ids, batch.mask)
        return LossSum(*model.loss(hidden_BTD, batch.labels))

    def flops(self, batch: Batch) -> float:
        """6 per weight and token for the matrices, 12 per layer, width and pair for attention.

        Padding counts, as it is computed. Attention counts every pair of columns, as PaLM's
        appendix B does (arXiv 2204.02311).
        """
        rows, columns = batch.input_ids.shape
        config = self.model_config
        width = config.num_heads * config.head_dim
        pairs = 12.0 * config.num_blocks * width * columns
        return rows * columns * (6.0 * self._matrix_size + pairs)

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the folder that the other commands take as --model."""
        assert isinstance(model, Transformer)
        save_pretrained(model, self.tokenizer, folder)


def _matmul_parameters(config: TransformerConfig) -> int:
    """Weights that every token is multiplied by: the blocks' matrices and the head."""
    heads = config.num_heads + 2 * config.num_kv_heads
    attention = config.hidden_size * config.head_dim * (heads + config.num_heads)
    up = 2 if config.is_gated else 1
    mlp = config.hidden_size * config.ffn_hidden_size * (up + 1)
    return config.num_blocks * (attention + mlp) + config.vocab_size * config.hidden_size
