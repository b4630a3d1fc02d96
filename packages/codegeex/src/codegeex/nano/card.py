"""The card of nano-code: what it is, how it came about, how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glm_core.train.callbacks import format_seconds


def card(measured: Mapping[str, Any], size: int, note: str = "") -> str:
    """The model's README.

    Args:
        measured: as `ship_code.ship` returns it.
        size: bytes of the shipped folder.
        note: a paragraph on the training; may be empty.
    """
    training, corpus = measured["training"], measured["corpus"]
    shipped, unquantized = measured["shipped"], measured["unquantized"]
    ngram, next_line = measured["ngram"], measured["next_line"]
    unhealed = measured["without_healing"]
    lines = int(shipped["lines"])
    return f"""# nano-code

A model of {measured["parameters"] / 1e6:.1f} M parameters that completes Python: it goes on from
what stands before the cursor, and looks at what stands behind it. It exists so that an editor on a
machine without a network has something real to talk to, and so that everything in this package can
be tried. It knows how Python files look and little of what they mean; read what it writes.

## Training

| | |
|---|---|
| data | `codegeex prepare installed-code --out outputs/nano_code_data` |
| command | `codegeex train experiment=nano_code run_dir=outputs/nano_code` |
| shipped by | `python -m codegeex.nano.ship_code outputs/nano_code` |
| training split | {_split(corpus["train"])} |
| held-out split | {_split(corpus["heldout"])} |
| steps, tokens | {training["steps"]:,} steps, {training["tokens"] / 1e6:.1f} M tokens |
| time | {format_seconds(training["seconds"])}, {training["processor"]}, torch {training["torch"]} |
| last loss | training {training["loss"]:.3f}, held-out {training["heldout_loss"]:.3f} nats |
| format | suffix, prefix, middle (`spm` in codegeex/fim/formats.py) |
| stored | int4 in groups of 32 (GPTQ), {size / 1e6:.2f} MB with tokenizer and this card's data |

Files are held out by a hash of their names before holes are made, and near copies of held-out files
are left out of the training split.
{f"{chr(10)}{note}{chr(10)}" if note else ""}
## Held-out results

{lines:,} lines drawn from the held-out files; all that stands behind the line's indentation is
wanted, and right only if it is the same to the last character. All numbers are also in
`evaluation.json`.

| | lines exactly right | edit similarity | bits per byte |
|---|---|---|---|
| nano-code as shipped | {_share(shipped["exact"])} | {shipped["similarity"]:.3f} | \
{shipped["bits_per_byte"]:.3f} |
| before int4 | {_share(unquantized["exact"])} | {unquantized["similarity"]:.3f} | \
{unquantized["bits_per_byte"]:.3f} |
| as shipped, without token healing | {_share(unhealed["exact"])} | {unhealed["similarity"]:.3f} | |
| {ngram["order"]}-gram (Kneser-Ney, same tokens) | {_share(ngram["exact"])} | \
{ngram["similarity"]:.3f} | {ngram["bits_per_byte"]:.3f} |
| most frequent next line | {_share(next_line["exact"])} | {next_line["similarity"]:.3f} | |

Bits per byte are those of {measured["measured_tokens"]:,} tokens of held-out files, read from left
to right.

## How it completes

Greedy, as they come; `▮` is the cursor.

{_samples(measured["samples"])}

## Whose code it has read

{len(measured["packages"])} packages, all under licences that permit it; with their share of the
text. Packages under another licence, or none that their metadata tell, were left out.

{_packages(measured["packages"])}
"""


def _split(split: Mapping[str, Any]) -> str:
    return (
        f"{split['documents']:,} files, {split['bytes'] / 1e6:.1f} MB, "
        f"{split['tokens']:,} tokens, sha256 `{split['sha256'][:16]}`"
    )


def _share(share: float) -> str:
    return f"{share:.1%}"


def _samples(samples: Sequence[Mapping[str, str]]) -> str:
    told = []
    for sample in samples:
        before = f"{sample['prefix']}▮{sample['suffix']}".rstrip()
        after = f"{sample['prefix']}{sample['completion']}{sample['suffix']}".rstrip()
        told.append(f"```python\n{before}\n```\n\n```python\n{after}\n```")
    return "\n\n---\n\n".join(told)


def _packages(packages: Sequence[Mapping[str, Any]]) -> str:
    total = sum(package["bytes"] for package in packages)
    packages = sorted(packages, key=lambda package: -package["bytes"])
    rows = [
        f"| {one['name']} {one['version']} | {one['licence']} | {one['files']:,} | "
        f"{one['bytes'] / total:.2%} |"
        for one in packages
    ]
    return "\n".join(["| package | licence | files | share |", "|---|---|---|---|", *rows])
