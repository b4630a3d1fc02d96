from __future__ import annotations

from pathlib import Path

import pytest

from glm_core.bench import offload
from glm_core.testing import tiny_config


def test_every_setting_is_measured_when_layers_are_offloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offload, "preset", tiny_config)
    monkeypatch.setattr(offload, "_in_child", offload._run)
    rows = offload.measure("chatglm2-6b", 6, 8, tokens=2, folder=tmp_path, threads=1)
    assert [(row.resident, row.source) for row in rows] == [
        (6, "page cache"),
        (3, "page cache"),
        (3, "disk"),
        (0, "page cache"),
        (0, "disk"),
    ]
    whole, half, none = rows[0], rows[1], rows[3]
    assert whole.gigabytes_per_token == 0
    assert none.gigabytes_per_token == pytest.approx(2 * half.gigabytes_per_token)
    assert all(row.tokens_per_second > 0 and row.bits == 8 for row in rows)
    lines = offload.as_table(rows).splitlines()
    assert "6 of 6 layers resident:" in lines[0] and "GB per token" not in lines[0]
    assert "0 of 6 layers resident: reads 0.00 GB per token from the disk" in lines[4]
