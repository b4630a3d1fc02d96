"""Everything that `glm train` can be told, as one typed tree. Hydra reads this dataclass."""

from dataclasses import asdict, dataclass
from typing import Any

from glm_core.data.config import DataConfig
from glm_core.model.config import GenerationLayout, TransformerConfig
from glm_core.tokenizer.byte_bpe import MIN_VOCAB_SIZE
from glm_core.train.optim import OptimConfig
from glm_core.train.trainer_config import TrainerConfig

# Where the text comes from is told by what it is: see `identity`.
_NOT_CONTENT = ("source", "text_field", "tokenizer", "vocab_size", "workers", "cache_dir")


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """A pretraining run."""

    model: TransformerConfig
    """The transformer."""
    data: DataConfig
    """What it reads."""
    optim: OptimConfig
    """How its weights move."""
    trainer: TrainerConfig
    """How long, how much at once, what is kept."""
    run_dir: str
    """Folder of everything that the run writes; the same folder again resumes the run."""

    def __post_init__(self) -> None:
        if not self.run_dir:
            raise ValueError("run_dir is empty; name a folder, for example run_dir=outputs/mine")
        if self.data.seq_length > self.model.max_position_embeddings:
            raise ValueError(
                f"data.seq_length is {self.data.seq_length}, longer than"
                f" model.max_position_embeddings ({self.model.max_position_embeddings}); lower the"
                " first or raise the second"
            )
        if self.data.tokenizer == "train" and self.data.vocab_size < MIN_VOCAB_SIZE:
            raise ValueError(
                f"data.vocab_size is {self.data.vocab_size}; the bytes and the special tokens need"
                f" at least {MIN_VOCAB_SIZE}"
            )
        if self.data.tokenizer == "train" and self.data.vocab_size > self.model.vocab_size:
            raise ValueError(
                f"data.vocab_size is {self.data.vocab_size}, more ids than model.vocab_size"
                f" ({self.model.vocab_size}); lower the first or raise the second"
            )

        self._check_layout()

    def _check_layout(self) -> None:
        """What is trained must be what `glm generate` will ask for."""
        data, layout = self.data, self.model.generation_layout
        has_blanks = bool(data.mask + data.sentence + data.gmask)
        if layout is GenerationLayout.causal and has_blanks:
            raise ValueError(
                "model.generation_layout is causal, but data.mask, data.sentence or data.gmask is"
                " above 0: a causal model never fills blanks; set the three to 0 and data.causal=1,"
                " or model.generation_layout=blank"
            )
        if layout is not GenerationLayout.causal and not has_blanks:
            raise ValueError(
                f"model.generation_layout is {layout.value}, but only data.causal is above 0: a"
                " model that never saw a blank cannot fill one; raise data.mask or data.gmask, or"
                " set model.generation_layout=causal"
            )
        goes_on = layout is GenerationLayout.blank_1d
        if data.gmask and data.gmask_positions_go_on != goes_on:
            raise ValueError(
                f"model.generation_layout is {layout.value}, but data.gmask_positions_go_on is"
                f" {data.gmask_positions_go_on}: the model would generate at other positions than"
                f" it was trained at; set data.gmask_positions_go_on={goes_on}"
            )

    def identity(self, corpus: str) -> dict[str, Any]:
        """What a resumed run must share with the one that it resumes.

        Args:
            corpus: sha256 of the tokens that are trained on.
        """
        data = asdict(self.data)
        for name in _NOT_CONTENT:
            del data[name]
        return {
            "model": self.model.to_dict(),
            "data": {name: getattr(value, "value", value) for name, value in data.items()},
            "trainer": {"seed": self.trainer.seed},
            "corpus": corpus,
        }
