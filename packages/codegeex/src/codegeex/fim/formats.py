"""The formats that models of the family were taught.

A folder of a model may say which one is its own in `fim.json`; otherwise its tokenizer tells.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from codegeex.fim.format import MIDDLE, PREFIX, SENTINELS, SUFFIX, FimFormat, Mark, Slot
from glm_core.checkpoint.files import write_json
from glm_core.checkpoint.hub import resolve_model
from glm_core.tokenizer.protocol import Tokenizer
from glm_core.tokenizer.specials import EOS

FIM_FILE = "fim.json"
_AS_DOCUMENT = (Slot.path_line, Slot.text, Mark(EOS))

SPM = FimFormat(
    name="spm",
    about="suffix, prefix, middle: typing leaves the beginning as it is; what is trained here",
    parts=(
        Slot.references,
        Mark(SUFFIX),
        Slot.suffix,
        Mark(PREFIX),
        Slot.path_line,
        Slot.prefix,
        Mark(MIDDLE),
    ),
    reference=_AS_DOCUMENT,
    template=f"{SUFFIX}{{{{ .Suffix }}}}{PREFIX}{{{{ .Prompt }}}}{MIDDLE}",
)
PSM = FimFormat(
    name="psm",
    about="prefix, suffix, middle: GLM-4.5 and most other code models",
    parts=(
        Slot.references,
        Mark(PREFIX),
        Slot.path_line,
        Slot.prefix,
        Mark(SUFFIX),
        Slot.suffix,
        Mark(MIDDLE),
    ),
    reference=_AS_DOCUMENT,
    template=f"{PREFIX}{{{{ .Prompt }}}}{SUFFIX}{{{{ .Suffix }}}}{MIDDLE}",
)
CODEGEEX4 = FimFormat(
    name="codegeex4",
    about="CodeGeeX4: suffix first, with path, language, mode and other files",
    parts=(
        Mark("<|user|>"),
        "\n",
        Slot.references,
        "###PATH:",
        Slot.path,
        "\n###LANGUAGE:",
        Slot.language,
        "\n###MODE:",
        Slot.mode,
        "\n",
        Mark(SUFFIX),
        Slot.suffix,
        Mark(PREFIX),
        Slot.prefix,
        Mark(MIDDLE),
        Mark("<|assistant|>"),
        "\n",
    ),
    reference=("###REFERENCE:\n###PATH:", Slot.path, "\n", Slot.text, "\n"),
    stops=(EOS, *SENTINELS, "<|user|>", "<|assistant|>", "<|observation|>"),
    template="<|user|>\n###PATH:\n###LANGUAGE:\n###MODE:BLOCK\n"
    f"{SUFFIX}{{{{ .Suffix }}}}{PREFIX}{{{{ .Prompt }}}}{MIDDLE}<|assistant|>\n",
)
"""Source: THUDM/CodeGeeX4 guides/Infilling_guideline.md."""

FORMATS: dict[str, FimFormat] = {format.name: format for format in (SPM, PSM, CODEGEEX4)}


def find_format(name: str) -> FimFormat:
    """Returns the format of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"fim format {name!r} is unknown: {hint}choose from {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of(tokenizer: Tokenizer) -> FimFormat:
    """Returns the format that a model was taught, as its tokenizer tells.

    Raises:
        ValueError: the tokenizer has no sentinels: the model was never taught to fill in.
    """
    missing = [name for name in SENTINELS if not tokenizer.has(name)]
    if missing:
        raise ValueError(
            f"the model was not taught to fill in: its tokenizer has no {', '.join(missing)}; "
            "leave the suffix away, or use another model, such as nano-code"
        )
    has_roles = tokenizer.has("<|user|>") and tokenizer.has("<|assistant|>")
    return CODEGEEX4 if has_roles else SPM


def read_format(folder: Path, tokenizer: Tokenizer) -> FimFormat | None:
    """Returns the format of the model in a folder; None if it cannot fill in.

    Raises:
        ValueError: the folder's fim.json cannot be used.
    """
    path = folder / FIM_FILE
    if path.is_file():
        try:
            named = json.loads(path.read_text(encoding="utf-8"))["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{path} is not readable: it must be {{"format": one of {", ".join(FORMATS)}}}'
            ) from error
        return find_format(str(named))
    has_all = all(tokenizer.has(name) for name in SENTINELS)
    return format_of(tokenizer) if has_all else None


def format_of_model(
    name_or_folder: Path | str, tokenizer: Tokenizer, chosen: str | None = None
) -> FimFormat | None:
    """Returns how the model that a command names fills in; None if it cannot.

    Args:
        name_or_folder: as `load_model` takes it.
        tokenizer: the model's.
        chosen: name of a format that somebody chose; None for what the model tells.

    Raises:
        ValueError: the chosen format is unknown, or the folder's fim.json cannot be used.
    """
    if chosen is not None:
        return find_format(chosen)
    return read_format(resolve_model(name_or_folder, weights=False), tokenizer)


def write_format(format: FimFormat, folder: Path) -> None:
    """Notes in a model's folder which format it was taught."""
    write_json(folder / FIM_FILE, {"format": format.name})
