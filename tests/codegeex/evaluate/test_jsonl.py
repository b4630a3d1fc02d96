"""Files of one JSON object per line."""

import gzip
import json

import pytest

from codegeex.evaluate.jsonl import cut_off_torn_line, read_rows


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_come_with_their_lines_when_some_are_empty(tmp_path, name):
    text = '{"a": "ü\u2028"}\n\n  \n{"a": 2}'.encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert list(read_rows(tmp_path / name)) == [(1, {"a": "ü\u2028"}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": ', "line 2 is no JSON"),
        (b"[1]\n", "line 1 must be a JSON object, not '\\[1\\]'"),
        (b'{"a": 1}\n\xff\xfe\n', "cannot be read after line"),
    ],
)
def test_file_is_refused_with_its_line_when_a_line_is_no_object(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_rows(path))


def test_file_is_refused_when_it_is_not_compressed_as_its_name_says(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="rows.jsonl.gz cannot be read.*compressed with gzip"):
        list(read_rows(path))


@pytest.mark.parametrize("torn", ["", '{"a"', '{"a": 3}', "x" * 70_000])
def test_torn_line_is_skipped_and_cut_off_when_a_break_left_it(tmp_path, torn):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n' + torn)
    assert [row["a"] for _, row in read_rows(path, may_be_cut=True)] == [1, 2]
    cut_off_torn_line(path)
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'


def test_file_is_empty_when_its_only_line_is_cut_off(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": 1}))
    cut_off_torn_line(path)
    assert path.read_text() == ""
