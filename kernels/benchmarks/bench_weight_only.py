"""Time int4 and int8 weight-only products against PyTorch's own and against reading memory.

    python kernels/benchmarks/bench_weight_only.py --out kernels/benchmarks/results/weight_only.csv
    python kernels/benchmarks/bench_weight_only.py --only 4096x4096 --rows 1 --rounds 20

Shapes are [in]x[out] of ChatGLM2/3-6B. For one row of x the unit is GB/s of weights with their
scales, which every token has to read: each side goes through copies of its weight of more than
`--megabytes` in all, so that no cache holds them. The limit is the bandwidth of PyTorch's fp32
matrix-vector product over as much memory in pieces of the same size, on usual pages or on huge
ones, whichever reads faster. For more rows the unit is Gop/s, two operations for each weight and
row.

All sides alternate within a round and each call is timed. A round counts with the upper quartile of
its calls: where others use the machine too, half of them wait for a thread that does not run. The
row has the median and the quartiles of the rounds, and the median of ratio = ours / peer and of
of_limit = ours / limit, both taken within a round.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench_ops import machine
from torch import Tensor

from glm_kernels import PackedWeight, linear_weight_only, pack_weight
from glm_kernels.cpu import library
from glm_kernels.memory import empty_on_huge_pages

SHAPES = ((4096, 4096), (4096, 27392), (13696, 4096), (4096, 65024))
FORMATS = {"int4-g32": (4, 32), "int4-g128": (4, 128), "int4-row": (4, None), "int8-row": (8, None)}
COLUMNS = (
    "op,shape,rows,weight,activations,dtype,device,cpu,threads,torch,isa,commit,unit,"
    "ours,ours_q1,ours_q3,peer,peer_q1,peer_q3,limit,ratio,of_limit"
).split(",")
READ_WIDTH = 4096
Calls = list[Callable[[], object]]


def read_calls(nbytes: int, megabytes: int, huge: bool) -> Calls:
    """Matrix-vector products over as much fp32 memory, each over about `nbytes`."""
    vector = torch.randn(READ_WIDTH)
    shape = (nbytes // (READ_WIDTH * 4), READ_WIDTH)
    make = empty_on_huge_pages if huge else torch.empty
    count = copies(nbytes, megabytes)
    pieces = [make(shape, dtype=torch.float32).fill_(0.5) for _ in range(count)]
    return [lambda piece=piece: torch.mv(piece, vector) for piece in pieces]


def ours(shape: tuple[int, int], weight: str, megabytes: int) -> list[PackedWeight]:
    """Copies of a packed weight, random levels."""
    (columns, rows), (bits, group) = shape, FORMATS[weight]
    levels = torch.randint(-128, 128, (rows, columns * bits // 8), dtype=torch.int8)
    scales = torch.rand((rows,) if group is None else (rows, columns // group)).half() * 0.01
    first = pack_weight(levels, scales, bits=bits, group=group)
    return [first, *(clone(first) for _ in range(copies(first.nbytes, megabytes) - 1))]


def clone(packed: PackedWeight) -> PackedWeight:
    def copy(tensor: Tensor) -> Tensor:
        return empty_on_huge_pages(tensor.shape, tensor.dtype).copy_(tensor)

    return dataclasses.replace(packed, levels=copy(packed.levels), scales=copy(packed.scales))


def copies(nbytes: int, megabytes: int) -> int:
    return max(1, -(-(megabytes << 20) // nbytes))


def peer_calls(shape: tuple[int, int], weight: str, x: Tensor, megabytes: int) -> tuple[Calls, int]:
    """PyTorch's own products in bf16 (fp32 is slower by ten times), and the bytes of a weight."""
    (columns, rows), (bits, group) = shape, FORMATS[weight]
    x = x.bfloat16()
    if bits == 8:
        levels = torch.randint(-128, 128, (rows, columns), dtype=torch.int8)
        scales = torch.rand(rows).bfloat16()
        all_levels = [levels.clone() for _ in range(copies(levels.nbytes, megabytes))]
        run = torch.ops.aten._weight_int8pack_mm
        return [lambda w=w: run(x, w, scales) for w in all_levels], levels.nbytes + scales.nbytes
    if group is None:
        raise ValueError("PyTorch's int4 product has no scale for whole rows")
    whole = torch.randint(0, 16, (rows, columns), dtype=torch.int32)
    levels = torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 2)
    del whole
    scales = torch.rand(columns // group, rows, 2).bfloat16()
    pairs = [
        (levels.clone(), scales.clone())
        for _ in range(copies(levels.nbytes + scales.nbytes, megabytes))
    ]
    run4 = torch.ops.aten._weight_int4pack_mm_for_cpu
    nbytes = levels.nbytes + scales.nbytes
    return [lambda w=w, s=s: run4(x, w, group, s) for w, s in pairs], nbytes


def rate(calls: Calls, work: float) -> float:
    """Upper quartile over the calls of work per second, in units of 1e9."""
    rates = []
    for call in calls:
        start = time.perf_counter()
        call()
        rates.append(work / (time.perf_counter() - start) / 1e9)
    return statistics.quantiles(rates, n=4, method="inclusive")[2] if len(rates) > 1 else rates[0]


def measure(
    shape: tuple[int, int],
    weight: str,
    rows: int,
    activation_bits: int,
    arguments: argparse.Namespace,
) -> dict[str, str]:
    """One row of the table."""
    megabytes = arguments.megabytes if rows == 1 else 200
    x = torch.randn(rows, shape[0])
    packed = ours(shape, weight, megabytes)
    our_calls: Calls = [
        lambda p=p: linear_weight_only(x, p, activation_bits=activation_bits) for p in packed
    ]
    has_peer = FORMATS[weight] != (4, None)
    peers, peer_bytes = peer_calls(shape, weight, x, megabytes) if has_peer else ([], 0)
    our_bytes = packed[0].nbytes
    reads = [read_calls(our_bytes, megabytes, huge) for huge in (False, True)] if rows == 1 else []
    operations = 2.0 * rows * shape[0] * shape[1]
    our_work, peer_work = (our_bytes, peer_bytes) if rows == 1 else (operations, operations)
    results: list[tuple[float, float, float]] = []
    for turn in range(arguments.rounds + 1):  # the first warms up
        read = max(
            (rate(calls, our_bytes // (READ_WIDTH * 4) * READ_WIDTH * 4) for calls in reads),
            default=0.0,
        )
        mine = rate(our_calls, our_work)
        peer = rate(peers, peer_work) if peers else 0.0
        if turn:
            results.append((mine, peer, read))
    return row(shape, weight, rows, activation_bits, results)


def row(
    shape: tuple[int, int],
    weight: str,
    rows: int,
    activation_bits: int,
    results: list[tuple[float, float, float]],
) -> dict[str, str]:
    mine, peer, read = (list(side) for side in zip(*results, strict=True))
    about = machine() | {"isa": library.ISAS[library.isa()]}
    values = {
        "op": "linear_weight_only",
        "shape": f"{shape[0]}x{shape[1]}",
        "rows": str(rows),
        "weight": weight,
        "activations": f"{activation_bits} bits",
        "dtype": "float32 (peer: bfloat16)",
        **{key: value for key, value in about.items() if key in COLUMNS},
        "unit": "GB/s" if rows == 1 else "Gop/s",
        **quartiles("ours", mine),
        **(quartiles("peer", peer) if any(peer) else {}),
    }
    if any(peer):
        values["ratio"] = f"{statistics.median(a / b for a, b in zip(mine, peer, strict=True)):.2f}"
    if any(read):
        values["limit"] = f"{statistics.median(read):.1f}"
        share = statistics.median(a / b for a, b in zip(mine, read, strict=True))
        values["of_limit"] = f"{share:.2f}"
    return values


def quartiles(name: str, values: list[float]) -> dict[str, str]:
    if len(values) == 1:
        values = values * 2
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return {name: f"{middle:.1f}", f"{name}_q1": f"{first:.1f}", f"{name}_q3": f"{third:.1f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="CSV file to write")
    parser.add_argument("--only", default="", help="shapes that contain this")
    parser.add_argument("--weights", default=",".join(FORMATS), help="of " + ", ".join(FORMATS))
    parser.add_argument("--rows", default="1,8,64,512", help="rows of x")
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=1200, help="memory that a round reads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = []
    for rows in (int(text) for text in arguments.rows.split(",")):
        for shape in SHAPES if rows == 1 else SHAPES[1:2]:
            for weight in arguments.weights.split(","):
                for bits in (15,) if rows == 1 else (15, 8):
                    if arguments.only in f"{shape[0]}x{shape[1]}":
                        found.append(measure(shape, weight, rows, bits, arguments))
                        show(found[-1])
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(found)


def show(values: dict[str, str]) -> None:
    line = "{shape:>11} rows {rows:>3} {weight:9} {activations}: ours {ours:>5} {unit}".format(
        **values
    )
    for name in ("peer", "ratio", "limit", "of_limit"):
        line += f"  {name} {values[name]}" if name in values else ""
    print(line, flush=True)


if __name__ == "__main__":
    main()
