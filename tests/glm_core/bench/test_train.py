"""How `glm bench train` reports."""

import csv
from dataclasses import replace

from glm_core.bench.train import TrainRow, append_csv, as_table
from glm_core.cli import main

ROW = TrainRow(
    shape="10m",
    mode="eager",
    precision="fp32",
    ours_tokens_per_second=1200.0,
    transformers_tokens_per_second=1000.0,
    speed_ratio=1.2,
    speed_ratio_low=1.1,
    speed_ratio_high=1.3,
    ours_peak_mib=900.0,
    transformers_peak_mib=1800.0,
    memory_ratio=0.5,
    rounds=3,
    threads=2,
    torch="2.15.0",
    device="cpu",
)


def test_table_leads_with_the_ratios():
    line = as_table([ROW]).splitlines()[1]
    assert "1.20x" in line and "(1.10-1.30)" in line and "0.50x" in line


def test_csv_keeps_earlier_rows_and_one_header(tmp_path):
    path = tmp_path / "new" / "train.csv"
    append_csv([ROW], path, "abc")
    append_csv([replace(ROW, mode="compiled")], path, "def")
    rows = list(csv.DictReader(path.open()))
    assert [(row["commit"], row["mode"]) for row in rows] == [("abc", "eager"), ("def", "compiled")]
    assert float(rows[0]["speed_ratio"]) == 1.2


def test_bad_rounds_are_refused_before_anything_runs(capsys):
    assert main(["bench", "train", "--rounds", "0"]) == 2
    assert "--rounds is 0: it must be at least 1" in capsys.readouterr().err


def test_error_names_the_csv_folder_when_it_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["bench", "train", "--csv", str(tmp_path / "file" / "sub" / "a.csv")]) == 2
    assert "--csv: the folder" in capsys.readouterr().err
