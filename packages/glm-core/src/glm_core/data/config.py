"""Settings of the text data pipeline. Hydra reads this dataclass, so the types must be real."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf


class Split(StrEnum):
    """Which side of the corpus is read."""

    train = "train"
    heldout = "heldout"


MIN_SEQ_LENGTH = 16
_PROBABILITIES = (
    "mask_ratio",
    "gmask_min_ratio",
    "gmask_suffix_prob",
    "block_mask_prob",
    "single_span_prob",
    "short_seq_prob",
    "instruction_ratio",
    "heldout_fraction",
)
_WEIGHTS = ("mask", "sentence", "gmask", "causal")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What the model reads and how it is corrupted."""

    source: str = "installed-text"
    """`installed-text`; `stdlib-text`, its part that needs no package; a .txt, .md, .jsonl or
    .parquet file or a folder of such files; a folder written by `datasets.save_to_disk`; or a
    folder that `prepare_data` wrote earlier, whose tokenizer and split then hold."""
    text_field: str = "text"
    """Field (column) that holds the text in jsonl, parquet and `datasets` sources."""
    tokenizer: str = "train"
    """`train` learns a byte-level BPE from the training split; otherwise a tokenizer folder, or the
    name of a model that comes with the package."""
    vocab_size: int = 8192
    """Ids of a trained tokenizer, special tokens included; unused with a tokenizer folder."""
    seq_length: int = 512
    """Tokens per row, all columns included: context, sop and fillings."""
    mask: float = 0.5
    """Weight of samples with short blanks ([MASK], Poisson lengths)."""
    sentence: float = 0.3
    """Weight of samples whose blanks are whole sentences ([sMASK])."""
    gmask: float = 0.2
    """Weight of samples with one long blank ([gMASK])."""
    causal: float = 0.0
    """Weight of plain next-token samples."""
    mask_ratio: float = 0.15
    """Share of the text that [MASK] and [sMASK] blanks cover."""
    poisson_lambda: float = 3.0
    """Parameter of the Poisson weights of [MASK] span lengths, in tokens."""
    gmask_min_ratio: float = 0.25
    """Least share of the text that a [gMASK] blank covers."""
    gmask_suffix_prob: float = 0.5
    """How often a [gMASK] blank is the end of the text rather than a span inside it."""
    gmask_positions_go_on: bool = False
    """Number [gMASK] fillings on from the context, as model.generation_layout=blank_1d expects
    (GLM-130B), instead of giving them the position of their mask token."""
    block_mask_prob: float = 0.0
    """Share of [MASK] filling tokens shown to the model as dBLOCK."""
    single_span_prob: float = 0.0
    """How often a [MASK] sample has one span only."""
    short_seq_prob: float = 0.0
    """How often a text is cut into samples of one random length, from 32 tokens up, that fill the
    row side by side; teaches the model to work with little context."""
    pack: int = 1
    """Samples per row; each gets seq_length // pack tokens and sees only itself."""
    document_mask: bool = False
    """Make every document in a row a sample of its own, so none sees another document."""
    instruction_source: str = ""
    """A jsonl file with `prompt` and `response`, or a folder of them (one task per file)."""
    instruction_ratio: float = 0.0
    """Share of training samples that come from `instruction_source`. The held-out split has none:
    its loss would be that of examples which are trained on."""
    split: Split = Split.train
    """Which documents are read."""
    heldout_fraction: float = 0.01
    """Share of documents that are held out, chosen by a hash of their names."""
    workers: int = 0
    """Processes that build batches; 0 builds them in the training process. Does not change what
    is built."""
    cache_dir: str = ""
    """Where tokenised text is kept; empty means $GLM_CACHE or ~/.cache/glm-lab."""
    seed: int = 1234
    """Decides the order of the text and every random choice."""

    def __post_init__(self) -> None:
        """Checks every rule that needs no file.

        Raises:
            ValueError: naming the setting, its value, the rule and the remedy.
        """
        for name in _PROBABILITIES:
            _require(0 <= getattr(self, name) <= 1, name, self, "must be between 0 and 1")
        for name in _WEIGHTS:
            _require(0 <= getattr(self, name) < inf, name, self, "must not be negative or infinite")
        if not any(getattr(self, name) > 0 for name in _WEIGHTS):
            raise ValueError(
                f"all mode weights ({', '.join('data.' + name for name in _WEIGHTS)}) are 0: "
                "nothing could be trained; raise at least one of them"
            )
        _require(0 < self.poisson_lambda < inf, "poisson_lambda", self, "must be above 0")
        _require(self.mask_ratio > 0, "mask_ratio", self, "must be above 0")
        _require(self.pack >= 1, "pack", self, "must be at least 1")
        _require(self.workers >= 0, "workers", self, "must not be negative")
        _require(0 <= self.seed < 2**63, "seed", self, "must not be negative or above 2^63 - 1")
        if self.seq_length // self.pack < MIN_SEQ_LENGTH:
            raise ValueError(
                f"data.seq_length={self.seq_length} gives {self.seq_length // self.pack} tokens to "
                f"each of data.pack={self.pack} samples, at least {MIN_SEQ_LENGTH} are needed; "
                "raise data.seq_length or lower data.pack"
            )
        if self.instruction_ratio > 0 and not self.instruction_source:
            raise ValueError(
                f"data.instruction_ratio={self.instruction_ratio} needs data.instruction_source: "
                "name a jsonl file with prompt and response, or set the ratio to 0"
            )


def _require(holds: bool, name: str, config: DataConfig, rule: str) -> None:
    if not holds:
        raise ValueError(f"data.{name}={getattr(config, name)} {rule}")
