"""What `glm bench decode` prints beside its rates: ratios and goals."""

from __future__ import annotations

import json
from pathlib import Path

from glm_core.bench.decode import DecodeRow
from glm_core.bench.decode_table import as_result, as_table


def row(contender: str, ratio: float, reason: str = "", prompt: int = 0) -> DecodeRow:
    return DecodeRow(
        shape="chatglm3-6b",
        layers=28,
        batch=1,
        prompt=prompt,
        contender=contender,
        weights="int4",
        activations="bf16",
        tokens_per_second=8.0 / (ratio or 1),
        low=1.0,
        high=9.0,
        ratio=ratio,
        best_ratio=ratio,
        ratio_8_bit=2 * ratio if prompt else 0.0,
        read_gb_per_second=30.0,
        weight_gigabytes=3.5,
        rounds=5,
        tokens=16,
        threads=2,
        load=2.0,
        torch="2.15.0",
        cpu="Processor; 2 cores; x86_64 AVX512",
        reason=reason,
    )


def test_goal_stands_beside_the_ratio_when_one_is_set() -> None:
    rows = [row("ours", 1.0), row("llama.cpp Q4_0", 1.33), row("llama.cpp Q4_K", 2.5)]
    text = as_table([*rows, row("torch-int4", 1.75), row("chatglm.cpp Q4_0", 0.0, "no compiler")])
    assert "memory is read at 30.0 GB/s" in text
    assert "ours / llama.cpp: 1.33; goal 1.9, missed by 30%" in text
    assert "ours / torch-int4: 1.75; goal 1.5, met" in text
    assert "chatglm.cpp Q4_0  could not run: no compiler" in text
    assert "ours / chatglm.cpp" not in text


def test_both_widths_of_activations_are_judged_when_a_prompt_is_read() -> None:
    rows = [row("ours", 1.0, prompt=512), row("llama.cpp Q4_0", 2.0, prompt=512)]
    assert (
        "ours / llama.cpp: 2.00, with 8-bit activations 4.00; goal 2.5, missed by 20%, "
        "with 8-bit activations met" in as_table(rows)
    )
    result = as_result(rows, "abc", Path("a.csv"))
    assert result["ratios_8_bit_activations"] == {"llama.cpp": 4.0}


def test_result_has_ratios_and_reasons_when_written_as_json() -> None:
    rows = [row("ours", 1.0), row("transformers", 4.5), row("llama.cpp Q4_0", 0.0, "why")]
    result = json.loads(json.dumps(as_result(rows, "abc", Path("a.csv"))))
    assert result["ratios"] == {"transformers": 4.5}
    assert result["goals"]["llama.cpp"] == 1.9
    assert result["reasons"] == {"llama.cpp Q4_0": "why"}
    assert [r["commit"] for r in result["rows"]] == ["abc"] * 3
    assert "ratios_8_bit_activations" not in result
