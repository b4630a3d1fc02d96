import json
import sys

import pytest

from glm_core.data.sources import InstalledTextSource, open_source, read_jsonl
from glm_core.errors import MissingExtraError


def texts_of(location, field="text", fraction=0.0):
    return [d.text for d in open_source(str(location), field, fraction, 1).documents()]


def test_files_are_documents_in_sorted_order_when_a_folder_is_named(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("bee")
    (tmp_path / "sub" / "a.md").write_text("# ay")
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    assert texts_of(tmp_path) == ["bee", "# ay"]


def test_long_file_is_cut_between_paragraphs_when_it_is_alone(tmp_path):
    path = tmp_path / "book.txt"
    paragraphs = [f"Paragraph {i} " + "x" * 200 for i in range(50)]
    path.write_text("\n\n".join(paragraphs))
    texts = texts_of(path)
    assert len(texts) > 10
    assert "\n\n".join(texts) == "\n\n".join(paragraphs)


def test_blank_documents_are_left_out_when_read(tmp_path):
    (tmp_path / "a.txt").write_text(" \n ")
    (tmp_path / "b.txt").write_text("b")
    assert texts_of(tmp_path) == ["b"]


def test_records_are_documents_when_source_is_jsonl(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n\n{"text": "two", "x": 1}\n')
    assert texts_of(path) == ["one", "two"]


def test_named_field_is_read_when_the_text_is_elsewhere(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one"}\n')
    assert texts_of(path, "body") == ["one"]


def test_rows_are_documents_when_source_is_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        arrow.table({"text": ["one", None, "two"], "n": [1, 2, 3]}), tmp_path / "a.parquet"
    )
    assert texts_of(tmp_path / "a.parquet") == ["one", "two"]


def test_rows_are_documents_when_source_is_a_saved_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": ["one", "", "two"]})
    rows.save_to_disk(str(tmp_path / "plain"))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "dict"))
    assert texts_of(tmp_path / "plain") == ["one", "two"]
    assert texts_of(tmp_path / "dict") == ["one", "two"]


def test_dataset_without_train_is_refused_when_opened(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": ["one"]})
    datasets.DatasetDict({"test": rows}).save_to_disk(str(tmp_path))
    with pytest.raises(ValueError, match="has splits test but no train"):
        texts_of(tmp_path)


@pytest.mark.parametrize("name", ["installed-text", "stdlib-text"])
def test_built_in_corpus_is_chosen_when_named(name):
    source = open_source(name, "text", 0.01, 1)
    assert isinstance(source, InstalledTextSource)
    assert source.fingerprint()["source"] == name


def test_fingerprint_changes_when_a_file_does(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = open_source(str(path), "text", 0.01, 1).fingerprint()
    assert before == open_source(str(path), "text", 0.01, 1).fingerprint()
    path.write_text("other text")
    assert before != open_source(str(path), "text", 0.01, 1).fingerprint()
    json.dumps(before)


def test_error_names_the_setting_when_the_corpus_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"data\.source='.*none' does not exist.*installed-text"):
        open_source(str(tmp_path / "none"), "text", 0.01, 1)


@pytest.mark.parametrize("name", ["", "data.csv"])
def test_error_names_the_formats_when_nothing_is_readable(tmp_path, name):
    if name:
        (tmp_path / name).write_text("a,b")
    with pytest.raises(ValueError, match=r"holds no \.txt, \.md, \.jsonl or \.parquet file"):
        open_source(str(tmp_path / name), "text", 0.01, 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ', r"a\.jsonl:2 is not valid JSON"),
        ("[1]", r"a\.jsonl:2 is a list, not an object"),
        ('{"body": "x"}', r"a\.jsonl:2 has no field 'text' \(it has body\): set data\.text_field"),
        ('{"text": 5}', r"a\.jsonl:2: field 'text' is a int, not a string"),
    ],
)
def test_error_names_the_line_when_a_record_is_bad(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ok"}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        texts_of(path)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_error_names_the_file_when_it_is_not_utf8(tmp_path, name):
    (tmp_path / name).write_bytes(b'{"text": "caf\xe9"}\n')
    with pytest.raises(ValueError, match=f"{name} is not UTF-8 text"):
        texts_of(tmp_path / name)


def test_error_names_the_file_when_parquet_is_corrupt(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match=r"a\.parquet is not a readable parquet file"):
        texts_of(tmp_path)


def test_error_lists_columns_when_parquet_lacks_the_field(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"has no field 'text' \(it has body\)"):
        texts_of(tmp_path)


def test_error_names_the_install_command_when_pyarrow_is_missing(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"needs pyarrow: pip install"):
        texts_of(tmp_path)


def test_lines_are_numbered_when_some_are_empty(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert list(read_jsonl(path)) == [(2, {"a": 1}), (4, {"a": 2})]


def test_text_without_blank_lines_is_cut_when_it_is_long(tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(f"line {i}" for i in range(20_000)))
    (tmp_path / "words.txt").write_text(" ".join(f"word{i}" for i in range(20_000)))
    for name in ("lines.txt", "words.txt"):
        texts = texts_of(tmp_path / name)
        assert len(texts) > 20
        assert all(len(text) < 20_000 for text in texts)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_mark_of_an_editor_is_no_text_when_a_file_begins_with_it(tmp_path, name):
    text = '{"text": "one"}'
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert texts_of(tmp_path / name) == [text if name == "a.txt" else "one"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_error_names_the_file_when_it_cannot_be_opened(tmp_path, name, monkeypatch):
    (tmp_path / name).write_text("x")

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    source = open_source(str(tmp_path), "text", 0.0, 1)
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(ValueError, match=rf"{name} cannot be read \(Permission denied\): copy"):
        list(source.documents())


def test_error_names_the_file_when_pages_of_parquet_are_damaged(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": [f"text {i}" * 50 for i in range(500)]}), path)
    raw = bytearray(path.read_bytes())
    raw[100:2000] = b"U" * 1900
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.parquet is damaged .*: copy it again"):
        texts_of(path)


def test_error_names_the_row_when_a_column_holds_no_text(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    datasets = pytest.importorskip("datasets")
    parquet.write_table(arrow.table({"text": [1, 2]}), tmp_path / "a.parquet")
    datasets.Dataset.from_dict({"text": [1, 2]}).save_to_disk(tmp_path / "saved")
    for name in ("a.parquet", "saved"):
        with pytest.raises(ValueError, match="field 'text' is a int, not a string: set data"):
            texts_of(tmp_path / name)


def test_error_names_the_folder_when_a_saved_dataset_is_truncated(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["word " * 100] * 100}).save_to_disk(tmp_path / "saved")
    (arrow_file,) = (tmp_path / "saved").glob("*.arrow")
    arrow_file.write_bytes(arrow_file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"saved cannot be read \(.*\): copy it again"):
        texts_of(tmp_path / "saved")
