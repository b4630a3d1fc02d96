"""Fill-in-the-middle: how a hole in a file is written for a model, as data.

One definition for the trainer, the server and the evaluator: `format.py` says what a format is,
`formats.py` lists them, `prompt.py` writes a hole for a model, `split.py` makes holes of documents
for training, and `sample.py` writes those.
"""

from codegeex.fim.format import MIDDLE, PREFIX, SENTINELS, SUFFIX, FimFormat, Mark, Slot
from codegeex.fim.formats import (
    FORMATS,
    find_format,
    format_of,
    format_of_model,
    read_format,
    write_format,
)
from codegeex.fim.prompt import fim_ids

__all__ = [
    "FORMATS",
    "MIDDLE",
    "PREFIX",
    "SENTINELS",
    "SUFFIX",
    "FimFormat",
    "Mark",
    "Slot",
    "fim_ids",
    "find_format",
    "format_of",
    "format_of_model",
    "read_format",
    "write_format",
]
