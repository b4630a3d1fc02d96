"""Everything that `codegeex train` can be told. Hydra reads these dataclasses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from codegeex.fim.formats import find_format
from codegeex.fim.split import Kind
from glm_core.data.config import Split
from glm_core.model.config import GenerationLayout, TransformerConfig
from glm_core.train.optim import OptimConfig
from glm_core.train.trainer_config import TrainerConfig
from glm_core.tune.lora_training import LoraConfig

MIN_SEQ_LENGTH = 64
# Where the code comes from is told by what it is: see `identity`.
_NOT_CONTENT = ("source", "vocab_size", "heldout_fraction", "cache_dir", "workers", "split")


@dataclass(kw_only=True, slots=True)
class CodeDataConfig:
    """What a code model reads, and how holes are made of it."""

    source: str = ""
    """A folder that `codegeex prepare` wrote; or what it reads (a folder of code, a .jsonl or
    .jsonl.gz file, installed-code, stdlib-code), which is then prepared with its defaults."""
    vocab_size: int = 8192
    """Ids of a tokenizer that is trained on the source; unused where there is one already."""
    heldout_fraction: float = 0.01
    """Share of a source that is held out; a prepared folder keeps its own."""
    cache_dir: str = ""
    """Where prepared sources are kept; empty means $GLM_CACHE or ~/.cache/glm-lab."""
    seq_length: int = 512
    """Tokens of a row."""
    fim: str = "spm"
    """Format of the holes: spm, psm or codegeex4."""
    fim_rate: float = 0.5
    """Share of the documents that get a hole; the others are read from left to right."""
    random: float = 0.25
    """Weight of holes between two uniform cuts."""
    line: float = 0.4
    """Weight of holes up to the end of a line."""
    lines: float = 0.2
    """Weight of holes over several lines."""
    block: float = 0.15
    """Weight of holes that are all of an indented block."""
    document_mask: bool = False
    """Hide the other documents of a row from each. Without it a row of one repository teaches the
    model to look at the files before."""
    split: Split = Split.train
    """Which documents are read."""
    workers: int = 0
    """Processes that build batches; does not change what is built."""
    seed: int = 1234
    """Decides the order and every hole."""

    def __post_init__(self) -> None:
        find_format(self.fim)
        _require(
            self.seq_length >= MIN_SEQ_LENGTH, "seq_length", self, f"at least {MIN_SEQ_LENGTH}"
        )
        _require(0 <= self.fim_rate <= 1, "fim_rate", self, "between 0 and 1")
        for kind in Kind:
            _require(0 <= getattr(self, kind) < inf, kind, self, "at least 0 and finite")
        _require(0 <= self.heldout_fraction <= 1, "heldout_fraction", self, "between 0 and 1")
        _require(self.workers >= 0, "workers", self, "at least 0")
        _require(0 <= self.seed < 2**63, "seed", self, "between 0 and 2^63 - 1")
        if self.fim_rate > 0 and not any(self.weights.values()):
            raise ValueError(
                f"data.fim_rate is {self.fim_rate}, but the weights of all holes "
                f"({', '.join(Kind)}) are 0: raise one of them, or set data.fim_rate=0"
            )

    @property
    def weights(self) -> dict[Kind, float]:
        """Weight of each kind of hole."""
        return {kind: getattr(self, kind) for kind in Kind}


@dataclass(kw_only=True, slots=True)
class CodeTrainConfig:
    """A training of a code model."""

    model: TransformerConfig
    """The transformer; that of `init_from`, where one is named."""
    data: CodeDataConfig
    """What it reads."""
    optim: OptimConfig
    """How its weights move."""
    trainer: TrainerConfig
    """How long, how much at once, what is kept."""
    lora: LoraConfig
    """Whether all weights are trained, or a few that are added; for a model that goes on."""
    init_from: str = ""
    """Model that goes on learning: a name, a folder, or org/name on the hub. Its shape and its
    tokenizer hold. Empty begins with random weights."""
    run_dir: str = ""
    """Folder of everything that the run writes; the same folder again resumes the run."""

    def __post_init__(self) -> None:
        if not self.run_dir:
            raise ValueError("run_dir is empty; name a folder, for example run_dir=outputs/mine")
        if self.lora.rank and not self.init_from:
            raise ValueError(
                f"lora.rank is {self.lora.rank}, but init_from is empty: a few added weights teach"
                " nothing to a model of random numbers; set init_from=nano-code or another model,"
                " or lora.rank=0"
            )
        if not self.init_from:
            self.check_model()

    def check_model(self) -> None:
        """Checks that the data fits the model.

        Raises:
            ValueError: it does not.
        """
        if self.data.seq_length > self.model.max_position_embeddings:
            raise ValueError(
                f"data.seq_length is {self.data.seq_length}, longer than"
                f" model.max_position_embeddings ({self.model.max_position_embeddings}); lower the"
                " first or raise the second"
            )
        if self.model.generation_layout is not GenerationLayout.causal:
            raise ValueError(
                f"model.generation_layout is {self.model.generation_layout.value}: code is written"
                " from left to right; set model.generation_layout=causal"
            )

    def identity(self, corpus: str) -> dict[str, Any]:
        """What a resumed run must share with the one that it resumes.

        Args:
            corpus: sha256 of the tokens that are trained on.
        """
        data = {
            name: value for name, value in asdict(self.data).items() if name not in _NOT_CONTENT
        }
        begun = {"init_from": self.init_from, "lora": asdict(self.lora)} if self.init_from else {}
        return {
            "model": self.model.to_dict(),
            "data": data,
            "trainer": {"seed": self.trainer.seed},
            "corpus": corpus,
            **begun,
        }


def _require(holds: bool, name: str, config: CodeDataConfig, rule: str) -> None:
    if not holds:
        raise ValueError(f"data.{name}={getattr(config, name)} must be {rule}")
