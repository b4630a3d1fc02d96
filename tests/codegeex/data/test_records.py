import json

import pytest

from codegeex.data.files import SourceFile
from codegeex.data.records import Record, read_record, records_between


def source(tmp_path, lines):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"".join(lines))
    size = path.stat().st_size
    return SourceFile(path=str(path), name="corpus.jsonl", repository="data", size=size, changed=0)


@pytest.mark.parametrize(
    ("fields", "record"),
    [
        ({"code": "x"}, Record(text="x")),
        ({"content": "x", "path": "a/b.py"}, Record(text="x", path="a/b.py")),
        (
            {"content": "x", "max_stars_repo_name": "me/it", "license": ["mit", "isc"]},
            Record(text="x", repository="me/it", licence="mit OR isc"),
        ),
        ({"prompt": "p", "code": "x"}, Record(prompt="p", text="x")),
        ({"prompt": "p", "completion": "x"}, Record(prompt="p", text="x")),
        ({"prompt": "p", "response": "x\r\ny"}, Record(prompt="p", text="x\ny")),
        ({"code": "x", "language": "Rust"}, Record(text="x", language="Rust")),
        ({"code": "x", "path": None}, Record(text="x")),
    ],
)
def test_fields_are_found_when_they_have_a_usual_name(fields, record):
    assert read_record(json.dumps(fields).encode()) == record


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "is not valid JSON .*: fix or remove the line"),
        (b'{"code": "\xff"}', "is not UTF-8: convert the file"),
        (b"[1]", r'is a list, not an object: write \{"code": ...\} on each line'),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"text": "x"}', r"has no field code or content \(it has text\): rename the one"),
        (b"{}", r"has no field code or content \(it has none\)"),
        (b'{"prompt": "x"}', r"has no field code or completion \(it has prompt\)"),
        (b'{"code": 3}', "has no string in field 'code', but 3"),
        (b'{"code": "x", "prompt": null}', "has no string in field 'prompt', but null"),
    ],
)
def test_line_is_refused_when_it_is_no_record(line, message):
    with pytest.raises(ValueError, match=message):
        read_record(line)


def test_file_and_line_are_named_when_a_line_is_wrong(tmp_path):
    file = source(tmp_path, [b'{"code": "a"}\n', b"\n", b'{"code" 1}\n'])
    with pytest.raises(ValueError, match=r"^corpus.jsonl:3 is not valid JSON \(Expecting ':'"):
        list(records_between(file, 0, file.size))
    with pytest.raises(ValueError, match=r"^corpus.jsonl:3 "):
        list(records_between(file, 14, file.size))


@pytest.mark.parametrize("step", [1, 2, 7, 13, 30, 1000])
def test_every_record_is_read_once_when_a_file_is_read_in_stretches(tmp_path, step):
    texts = ["a", "é" * 20, "", "x\ny", "last"]
    lines = [json.dumps({"code": text}, ensure_ascii=False).encode() + b"\n" for text in texts]
    file = source(tmp_path, [*lines[:-1], lines[-1].rstrip()])
    found = [
        record.text
        for start in range(0, file.size, step)
        for record, _ in records_between(file, start, min(start + step, file.size))
    ]
    assert found == texts


@pytest.mark.parametrize(
    ("fields", "language"),
    [
        ({"language": "C++"}, "c++"),
        ({"language": "py"}, "python"),
        ({"path": "a.rs"}, "rust"),
        ({"language": "no such", "path": "a.go"}, "go"),
        ({"language": "no such"}, ""),
        ({}, ""),
    ],
)
def test_language_is_told_when_name_or_path_tell_it(tmp_path, fields, language):
    file = source(tmp_path, [json.dumps({"code": "x"} | fields).encode()])
    ((record, size),) = records_between(file, 0, file.size)
    assert record.language == language
    assert record.repository == "data/corpus.jsonl"
    assert size == file.size
