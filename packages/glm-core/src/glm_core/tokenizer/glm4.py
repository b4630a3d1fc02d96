"""GLM-4's byte-pair encoding by ranks (tiktoken): GLM-4-9B, CodeGeeX4-9B and their successors."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from glm_core.tokenizer.added import gaps, read_json
from glm_core.tokenizer.base import ReleasedTokenizer
from glm_core.tokenizer.byte_bpe import byte_alphabet
from glm_core.tokenizer.specials import EOS, GMASK, MASK, SMASK

RANK_FILE = "tokenizer.model"
JSON_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How text is cut before pairs are merged. Source: glm-4-9b's tokenization_chatglm.py."""
STANDARD = (
    EOS,
    MASK,
    GMASK,
    SMASK,
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
)
"""Special tokens in the order of their ids, the first one right after the ranks (151329)."""
STOPS = (EOS, "<|user|>", "<|observation|>")
MAX_WHITE_RUN = 500_000
_WHITE_RUN = re.compile(rf"\s{{{MAX_WHITE_RUN}}}")


class GLM4Tokenizer(ReleasedTokenizer):
    """Byte-pair encoding by ranks; no space in front, digits in groups of up to three.

    Special tokens beyond the fourteen of GLM-4-9B (<|code_prefix|> and the like) come from the
    folder's own files. Source: glm-4-9b's tokenization_chatglm.py.
    """

    kind: ClassVar[str] = "glm4"

    def __init__(
        self, ranks: Mapping[bytes, int], specials: Mapping[str, int], files: Sequence[Path]
    ) -> None:
        """
        Args:
            ranks: id of every piece, 0..n-1; all 256 bytes are among them.
            specials: ids by name.
            files: vocabulary files that `save` copies.
        """
        import tiktoken

        super().__init__(
            files,
            specials,
            vocab_size=1 + max(specials.values()),
            stop_names=STOPS,
            nameless_ids=gaps(specials, len(ranks)),
        )
        self._pieces = sorted(ranks, key=ranks.__getitem__)
        # No special token is known to the encoder, so no text can produce one.
        self._bpe = tiktoken.Encoding(
            "glm4", pat_str=PATTERN, mergeable_ranks=dict(ranks), special_tokens={}
        )

    @classmethod
    def load(cls, folder: Path | str) -> GLM4Tokenizer:
        """Reads tokenizer.model (ranks), otherwise tokenizer.json.

        Raises:
            ValueError: if there is neither, or the file is damaged or another tokenizer's.
        """
        folder = Path(folder)
        ranks_path, json_path = folder / RANK_FILE, folder / JSON_FILE
        if ranks_path.is_file():
            path, ranks = ranks_path, read_ranks(ranks_path)
            added = _configured(folder / CONFIG_FILE)
        elif json_path.is_file():
            path, (ranks, added) = json_path, read_tokenizer_json(json_path)
        else:
            raise ValueError(
                f"{folder} has neither {RANK_FILE} nor {JSON_FILE}: copy one of them from the "
                "released model"
            )
        return cls(ranks, _specials(path, len(ranks), added), [path])

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special id.

        Raises:
            ValueError: for half a million white-space characters in a row, which the regular
                expression cannot take.
        """
        if len(text) >= MAX_WHITE_RUN and _WHITE_RUN.search(text):
            raise ValueError(
                f"the text has a run of over {MAX_WHITE_RUN:,} white-space characters, too long "
                "for this tokenizer: shorten the run"
            )
        return self._bpe.encode_ordinary(text)

    def piece(self, token: int) -> bytes:
        """Bytes of one piece."""
        return self._pieces[token]


def read_ranks(path: Path) -> dict[bytes, int]:
    """Pieces and their ranks from lines of "base64 rank".

    Raises:
        ValueError: naming the first damaged line, or what the whole lacks.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            piece, rank = line.split()
            ranks[base64.b64decode(piece, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(
                f"line {number} of {path} is not a base64 piece and its rank ({error}); "
                "copy the file again"
            ) from error
    return _checked(path, ranks)


def read_tokenizer_json(path: Path) -> tuple[dict[bytes, int], dict[str, int]]:
    """Ranks and special tokens from the file that transformers reads.

    Raises:
        ValueError: if the file is damaged, or cuts text in another way than GLM-4.
    """
    content = read_json(path)
    alphabet = byte_alphabet()
    try:
        vocab: dict[str, int] = content["model"]["vocab"]
        added = {token["content"]: token["id"] for token in content["added_tokens"]}
        pattern = _split_pattern(content["pre_tokenizer"])
        special = set(added)
        ranks = {
            bytes(alphabet[char] for char in piece): token
            for piece, token in vocab.items()
            if piece not in special
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no byte-level tokenizer: {error!r} is wrong or missing; copy it again"
        ) from error
    if pattern != PATTERN or content.get("normalizer"):
        raise ValueError(f"{path} cuts text in another way than GLM-4: it is another model's")
    return _checked(path, ranks), added


def _split_pattern(pre_tokenizer: Mapping[str, Any]) -> str | None:
    """The regular expression of the first Split step, None without one."""
    for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        if step["type"] == "Split":
            return str(step["pattern"]["Regex"])
    return None


def _checked(path: Path, ranks: dict[bytes, int]) -> dict[bytes, int]:
    """`ranks`, when they are 0..n-1 and can encode any byte."""
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{path} must hold the ranks 0..n-1, each once; copy the file again")
    missing = sum(bytes([value]) not in ranks for value in range(256))
    if missing:
        raise ValueError(f"{path} lacks {missing} of the 256 single bytes; copy the file again")
    return ranks


def _configured(path: Path) -> dict[str, int]:
    """Special tokens in tokenizer_config.json, ours or the released one; {} if it names none."""
    if not path.is_file():
        return {}
    config = read_json(path)
    try:
        if "special_tokens" in config:
            return {str(name): int(token) for name, token in config["special_tokens"].items()}
        table = config.get("added_tokens_decoder", {})
        return {entry["content"]: int(token) for token, entry in table.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} names special tokens wrongly ({error!r}); copy it again"
        ) from error


def _specials(path: Path, first: int, added: Mapping[str, int]) -> dict[str, int]:
    """The standard special tokens and those of the files, which must agree."""
    standard = {name: first + rank for rank, name in enumerate(STANDARD)}
    wrong = [name for name, token in standard.items() if added.get(name, token) != token]
    if wrong:
        raise ValueError(
            f"{path} holds {first} pieces, so {wrong[0]} must be {standard[wrong[0]]}, but its "
            f"files say {added[wrong[0]]}: they belong to different models"
        )
    low = [name for name, token in added.items() if token < first]
    if low:
        raise ValueError(
            f"{path} holds {first} pieces, but its special token {low[0]} has the id "
            f"{added[low[0]]} of one of them: the files belong to different models"
        )
    return {**standard, **added}
